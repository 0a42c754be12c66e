"""The cards of experiments/reproduce/: every number in a table follows from the raw results in the same folder."""

import csv
import math
import pathlib
import re
import subprocess
import sys
from types import ModuleType

import pytest

from omnijax.experiment import run_file
from omnijax.sweep.statistics import interval

ROOT = pathlib.Path(__file__).parents[1]
ROOM = ROOT / "experiments" / "reproduce"
SHOWN = re.compile(r"<!-- (?:table|units \S+ \S+) ((?:\S+ )+)")
"""The results that a table of a card is made of; the words behind them are no results."""
CARDS = sorted(path for path in ROOM.glob("*.md") if SHOWN.search(path.read_text(encoding="utf-8")))
SWEEPS = sorted(path.parent for path in ROOM.glob("results/*/table.csv"))
each_card = pytest.mark.parametrize("card", CARDS, ids=[path.name for path in CARDS])
each_sweep = pytest.mark.parametrize("sweep", SWEEPS, ids=[path.name for path in SWEEPS])


@pytest.fixture(scope="module")
def cards() -> ModuleType:
    return run_file(ROOM / "cards.py")


def test_there_are_cards_and_results() -> None:
    assert {path.stem for path in CARDS} >= {"radix", "assignment", "heads", "position"}
    shown = {
        word for card in CARDS for words in SHOWN.findall(card.read_text(encoding="utf-8")) for word in words.split()
    }
    assert shown >= {path.name for path in SWEEPS}, "every result stands on a card"


@each_card
def test_tables_are_those_of_the_results(card: pathlib.Path, cards: ModuleType) -> None:
    text = card.read_text(encoding="utf-8")
    assert cards.filled(text) == text, (
        "results changed: run `python experiments/reproduce/cards.py`, and check the text"
    )
    assert not re.search(r"\bnan\b", text)


@each_card
def test_a_card_says_what_was_run_and_shows_what_is_there(card: pathlib.Path) -> None:
    text = card.read_text(encoding="utf-8")
    for entry in ("Question", "Command", "Data", "Hardware", "Time", "Seeds", "Run again"):
        assert re.search(rf"^\| \*\*{entry}\*\* \| \S", text, re.MULTILINE), entry
    for path in re.findall(r"experiments/ablations/\w+\.py", text):
        assert (ROOT / path).is_file(), path
    figures = re.findall(r"\((figures/[^)]+)\)", text)
    assert figures
    for path in figures:
        assert (ROOM / path).read_bytes().startswith(b"\x89PNG"), path


def test_no_figure_is_left_over() -> None:
    shown = {path for card in CARDS for path in re.findall(r"\((figures/[^)]+)\)", card.read_text(encoding="utf-8"))}
    assert {path.relative_to(ROOM).as_posix() for path in ROOM.glob("figures/*/*")} == shown


@each_sweep
def test_a_table_follows_from_the_raw_results(sweep: pathlib.Path, cards: ModuleType) -> None:
    raw = cards.lines_of(sweep / "results.csv")
    lines = [line for line in cards.lines_of(sweep / "table.csv") if line["seeds"] != "0"]
    assert lines
    for line in lines:
        own = [one for one in raw if (one["arm"], one["form"]) == (line["arm"], line["form"])]
        assert len(own) == int(line["seeds"]) == 3
        for column, part in (("bits", "renormalised_bits"), ("exact", "exact"), ("leak", "leak_bits")):
            found = interval([cards.number(one, part) for one in own])
            there = cards.spread(line, column)
            for end in ("mean", "low", "high"):
                wanted = getattr(found, end)
                assert getattr(there, end) == pytest.approx(wanted, rel=1e-5, abs=1e-6, nan_ok=math.isnan(wanted))


@each_sweep
def test_curves_end_at_the_results(sweep: pathlib.Path, cards: ModuleType) -> None:
    last = {(line["arm"], line["seed"]): line for line in cards.lines_of(sweep / "curves.csv")}
    for line in cards.lines_of(sweep / "results.csv"):
        end = last[line["arm"], line["seed"]]
        assert end["step"] == line["steps"]
        assert float(end[line["form"]]) == pytest.approx(float(line["renormalised_bits"]), rel=1e-6)


@each_sweep
def test_arms_can_be_compared_with_any_other(sweep: pathlib.Path, cards: ModuleType) -> None:
    lines = [line for line in cards.lines_of(sweep / "table.csv") if line["seeds"] != "0"]
    form = lines[0]["form"]
    arms = [line["arm"] for line in lines if line["form"] == form]
    (baseline,) = [line["arm"] for line in lines if line["form"] == form and cards.baseline(line)]
    found = list(cards.against(baseline, sweep.name, form, "*"))[2:]
    told = list(cards.table(sweep.name, form, "bits", "difference", "verdict"))[2:]
    assert found == told, "against the baseline it is the table itself"
    for other in arms:
        assert len(list(cards.against(other, sweep.name, form, baseline))) == (4 if other != baseline else 3)


def test_arms_of_several_sweeps_are_compared_by_unit(cards: ModuleType, tmp_path, monkeypatch) -> None:
    """The second sweep has other items; pairs of seeds are compared, and an arm with itself is the baseline."""
    monkeypatch.setattr(cards, "RESULTS", tmp_path)
    columns = (
        "arm",
        "form",
        "seeds",
        "bits_mean",
        "difference_low",
        "difference_high",
        "items",
        "steps",
        "seconds",
        "parameters",
    )
    for name, arms in {"one": {"a": (2.0, 2.2), "b": (2.5, 2.9)}, "two": {"a": (1.0, 1.4)}}.items():
        (tmp_path / name).mkdir()
        lines = [
            {"arm": arm, "form": "x", "seed": seed, "bits_per_unit": value}
            for arm, values in arms.items()
            for seed, value in enumerate(values)
        ]
        table = []
        for arm, values in arms.items():
            mean = sum(values) / 2
            low = 0 if arm == "a" else 0.1
            spread = {f"bits_per_unit_{end}": mean for end in ("mean", "low", "high")}
            table.append(
                dict(zip(columns, (arm, "x", 2, 4 * mean, low, low, 1000, 10, 60, 5000), strict=True)) | spread
            )
        for file, rows in (("results.csv", lines), ("table.csv", table)):
            with (tmp_path / name / file).open("w", newline="", encoding="utf-8") as out:
                writer = csv.DictWriter(out, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    head, _, *found = list(cards.units("x", "sample", "one", "two"))
    assert "bits per sample" in head
    assert "samples seen" in head
    assert [line.split(" | ")[3] for line in found] == ["", "+0.600 ± 1.271", "−0.900 ± 1.271"]
    assert found[0].split(" | ")[4] == "the baseline"
    with pytest.raises(SystemExit, match="one has no baseline in two seeds or more that measured 'y'"):
        list(cards.units("y", "sample", "one", "two"))
    assert found[1].split(" | ")[5] == "4\N{NO-BREAK SPACE}k"


def compared(*arguments: pathlib.Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOM / "compare.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_arms_that_are_run_again_are_compared_with_the_results(cards: ModuleType, tmp_path: pathlib.Path) -> None:
    there = SWEEPS[0]
    again = tmp_path / there.name
    again.mkdir()

    def write(line: dict[str, str]) -> None:
        with (again / "results.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(line))
            writer.writeheader()
            writer.writerow(line)

    first = cards.lines_of(there / "results.csv")[0]
    write(first)
    same = compared(again)
    assert same.returncode == 0, same.stderr
    assert "1 compared, 0 outside" in same.stdout

    write(first | {"renormalised_bits": str(float(first["renormalised_bits"]) + 5)})
    other = compared(again, there)
    assert other.returncode == 1
    assert "1 compared, 1 outside" in other.stdout

    write(first | {"arm": "another"})
    assert compared(again, there).returncode == 1, "nothing was compared"
