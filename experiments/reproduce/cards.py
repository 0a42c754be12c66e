"""Fills the tables of the cards in this folder from the figures in results/, so that no number is copied by hand.

    python experiments/reproduce/cards.py                          # fills every table
    python experiments/reproduce/cards.py --add sweeps/NAME        # first copies the CSV files and figures of a sweep

A table of a card is between one of these lines and `<!-- end -->`:

    <!-- table NAME FORM COLUMN … -->        one line for each arm. NAME is a folder of results/, FORM a form of
                                             document such as `image|text`, or `image,anyorder` if its items are in any
                                             order. Columns are those of `COLUMNS`.
    <!-- against ARM NAME FORM PATTERN -->   the arms that fit a pattern, and their differences to ARM
    <!-- units FORM UNIT NAME … -->          the arms of several sweeps over the same signals in bits per UNIT, and
                                             their differences to the baseline of the first sweep
    <!-- directions NAME -->                 accuracies of generated signals
    <!-- anchors MODALITY [FILE] -->         the anchors of results/FILE, or those of results/anchors.csv without those
                                             that compress each signal by itself
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

from omnijax.evaluate.likelihoods import IN_ANY_ORDER
from omnijax.report.text import duration
from omnijax.sweep.anchors import read_anchors
from omnijax.sweep.statistics import Interval, interval, paired, quantity, share, told, verdict

ROOM = pathlib.Path(__file__).parent
RESULTS, FIGURES = ROOM / "results", ROOM / "figures"
TABLES = ("results.csv", "curves.csv", "table.csv", "directions.csv", "anchors.csv")
BLOCK = re.compile(r"(<!-- (?P<kind>[a-z]+) (?P<what>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
Line = dict[str, str]


def number(line: Line, name: str) -> float:
    """A cell as a number; NaN where it is empty."""
    return float(line[name] or "nan")


def spread(line: Line, name: str) -> Interval:
    """A mean and its interval over the seeds."""
    return Interval(*(number(line, f"{name}_{end}") for end in ("mean", "low", "high")), count=int(line["seeds"]))


def baseline(line: Line) -> bool:
    """Whether this is the arm that the others are compared with."""
    return number(line, "difference_low") == number(line, "difference_high") == 0


def to_equal_bits(line: Line, name: str, told: Callable[[float], str]) -> str:
    """The cost until the baseline's bits are reached, and in how many seeds, unless in all of them."""
    reached, _, seeds = line[f"{name}_reached"].split()
    if reached == "0":
        return "not reached"
    shown = told(number(line, f"{name}_mean"))
    return shown if reached == seeds else f"{shown} ({reached} of {seeds})"


def _difference(line: Line) -> str:
    return "" if baseline(line) else told(spread(line, "difference"), sign="+")


SAID = {"lower": "fewer", "higher": "more"}
COLUMNS: dict[str, tuple[str, Callable[[Line], str]]] = {
    "bits": ("bits per item", lambda line: told(spread(line, "bits"))),
    "unit": ("bits per pixel", lambda line: told(spread(line, "bits_per_unit"))),
    "difference": ("difference to the baseline", _difference),
    "verdict": (
        "verdict",
        lambda line: "the baseline" if baseline(line) else SAID.get(line["verdict"], line["verdict"]),
    ),
    "exact": ("exact items", lambda line: share(spread(line, "exact"))),
    "raw": ("raw bits", lambda line: f"{number(line, 'raw_mean'):.3f}"),
    "position": ("raw bits of positions", lambda line: f"{number(line, 'position_mean'):.3f}"),
    "seconds": ("seconds of training", lambda line: f"{number(line, 'seconds'):.0f}"),
    "leak": ("leak", lambda line: f"{number(line, 'leak_mean'):.3f}"),
    "tokens": ("tokens per item", lambda line: f"{number(line, 'tokens_per_item'):.3g}"),
    "per_item": ("steps per item", lambda line: f"{number(line, 'steps_per_item'):.3g}"),
    "steps": ("steps", lambda line: quantity(number(line, "steps"))),
    "items": ("items seen", lambda line: quantity(number(line, "items"))),
    "speed": ("items per s", lambda line: quantity(number(line, "items_per_second"))),
    "parameters": ("parameters", lambda line: quantity(number(line, "parameters"))),
    "flops": ("FLOPs per item", lambda line: quantity(number(line, "training_flops_per_item"))),
    "memory": ("peak memory", lambda line: f"{quantity(number(line, 'peak_bytes'))}B"),
    "cost": (
        "cost predicted / measured",
        lambda line: f"{number(line, 'predicted_ratio'):.2f} / {number(line, 'measured_ratio'):.2f}",
    ),
    "time_to": ("time to equal bits", lambda line: to_equal_bits(line, "seconds_to_equal_bits", duration)),
    "flops_to": ("FLOPs to equal bits", lambda line: to_equal_bits(line, "flops_to_equal_bits", quantity)),
}
"""The heading of each column, and its cell for a line of table.csv."""


def lines_of(path: pathlib.Path) -> list[Line]:
    """The lines of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(name: str, form: str, *columns: str) -> Iterator[str]:
    """The lines of a Markdown table for one form of document."""
    form = form.replace(",anyorder", IN_ANY_ORDER)
    yield "| arm | " + " | ".join(COLUMNS[column][0] for column in columns) + " |"
    yield "|---|" + "--:|" * len(columns)
    for line in lines_of(RESULTS / name / "table.csv"):
        if line["form"] == form and line["seeds"] != "0":
            yield f"| {line['arm']} | " + " | ".join(COLUMNS[column][1](line) for column in columns) + " |"


def directions(name: str) -> Iterator[str]:
    """The lines of a Markdown table of accuracies in percent, an arm each."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in lines_of(RESULTS / name / "directions.csv"):
        found.setdefault(line["arm"], {}).setdefault(line["direction"], []).append(number(line, "accuracy"))
    names = list(dict.fromkeys(direction for arm in found.values() for direction in arm))
    yield "| arm | " + " | ".join(one.replace("->", "→") for one in names) + " |"
    yield "|---|" + "--:|" * len(names)
    for arm, values in found.items():
        yield f"| {arm} | " + " | ".join(share(interval(values[one])) for one in names) + " |"


def against(arm: str, name: str, form: str, pattern: str) -> Iterator[str]:
    """The lines of a Markdown table of differences to an arm, over the seeds that both arms have."""
    bits: dict[str, dict[int, float]] = {}
    for line in lines_of(RESULTS / name / "results.csv"):
        if line["form"] == form and (line["arm"] == arm or fnmatch.fnmatchcase(line["arm"], pattern)):
            bits.setdefault(line["arm"], {})[int(line["seed"])] = number(line, "renormalised_bits")
    yield f"| arm | bits per item | difference to {arm} | verdict |"
    yield "|---|" + "--:|" * 3
    for other, values in bits.items():
        difference, mean = paired(values, bits[arm]), told(interval(list(values.values())))
        word = verdict(difference)
        cells = ("", "the baseline") if other == arm else (told(difference, sign="+"), SAID.get(word, word))
        yield f"| {other} | {mean} | {' | '.join(cells)} |"


def units(form: str, unit: str, *names: str) -> Iterator[str]:
    """The lines of a Markdown table of bits per pixel, sample or byte, which arms with other items have in common."""
    arms = {(name, line["arm"]): line for name in names for line in lines_of(RESULTS / name / "table.csv")}
    arms = {key: line for key, line in arms.items() if line["form"] == form and line["seeds"] != "0"}
    bits: dict[tuple[str, str], dict[int, float]] = {key: {} for key in arms}
    for name in names:
        for line in lines_of(RESULTS / name / "results.csv"):
            if line["form"] == form:
                bits[name, line["arm"]][int(line["seed"])] = number(line, "bits_per_unit")
    found = [key for key, line in arms.items() if key[0] == names[0] and baseline(line)]
    if not found:
        raise SystemExit(f"cards.py: {names[0]} has no baseline in two seeds or more that measured {form!r}")
    first = found[0]
    yield f"| sweep | arm | bits per {unit} | difference | verdict | {unit}s seen | steps | seconds | parameters |"
    yield "|---|---|" + "--:|" * 7
    for (name, arm), line in arms.items():
        difference = paired(bits[name, arm], bits[first])
        word = SAID.get(verdict(difference), verdict(difference))
        compared = ("", "the baseline") if (name, arm) == first else (told(difference, sign="+"), word)
        per_item = number(line, "bits_mean") / number(line, "bits_per_unit_mean")
        seen = quantity(number(line, "items") * per_item)
        cells = [told(spread(line, "bits_per_unit")), *compared, seen]
        cells += [COLUMNS[column][1](line) for column in ("steps", "seconds", "parameters")]
        yield f"| {name} | {arm} | {' | '.join(cells)} |"


def anchors(modality: str, file: str = "anchors.csv") -> Iterator[str]:
    """The lines of a Markdown table of anchors, the lowest first."""
    found = [one for one in read_anchors(RESULTS / file) if one.modality == modality]
    yield f"| outside anchor | {found[0].measure} |"
    yield "|---|--:|"
    for one in sorted(found, key=lambda one: one.value):
        if file != "anchors.csv" or "each alone" not in one.name:
            error = "" if one.standard_error is None else f" ± {one.standard_error:.3f}"
            yield f"| {one.name} | {one.value:.3f}{error} |"


def filled(text: str) -> str:
    """Returns a card with its tables filled."""
    kinds: dict[str, Callable[..., Iterator[str]]] = {"table": table, "directions": directions}
    kinds |= {"against": against, "anchors": anchors, "units": units}

    def made(found: re.Match[str]) -> str:
        lines = kinds[found["kind"]](*found["what"].split())
        return found[1] + "".join(f"{line}\n" for line in lines) + "<!-- end -->"

    return BLOCK.sub(made, text)


def add(out: pathlib.Path) -> None:
    """Copies the CSV files of a sweep, and those of its figures that a card shows."""
    (RESULTS / out.name).mkdir(parents=True, exist_ok=True)
    for path in (out / name for name in TABLES):
        if path.is_file():
            shutil.copyfile(path, RESULTS / out.name / path.name)
    shown = {path for card in ROOM.glob("*.md") for path in re.findall(r"\((figures/[^)]+)\)", card.read_text())}
    for path in sorted(pathlib.Path(one) for one in shown):
        if path.parent.name == out.name:
            (ROOM / path.parent).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(out / "figures" / path.name, ROOM / path)


def main() -> None:
    """Fills the tables of all cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=pathlib.Path, nargs="+", default=[], metavar="DIR", help="directories of sweeps")
    for out in parser.parse_args().add:
        add(out)
    for card in sorted(ROOM.glob("*.md")):
        card.write_text(filled(card.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
