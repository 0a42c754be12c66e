"""Writes the tables of the cards in this room from the figures in results/, so that no number is copied by hand.

    python experiments/reproduce/cards.py                          every table anew
    python experiments/reproduce/cards.py --add sweeps/NAME        takes the CSV files and figures of a sweep over first

In a card what is made stands between one of these and `<!-- end -->`:

    <!-- table NAME FORM COLUMN … -->        a line for each arm: NAME is a folder of results/, FORM a form of document
                                             such as `image|text`, or `image,anyorder` where its items stood in any
                                             order, and columns are those of `COLUMNS`
    <!-- against ARM NAME FORM PATTERN -->   arms that fit a pattern, against another one than the sweep's baseline
    <!-- directions NAME -->                 what was generated
    <!-- anchors MODALITY -->                what codecs and models that count need, of results/anchors.csv, but those
                                             that took each record alone
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

from omnijax.anchors.anchor import read_anchors
from omnijax.evaluate.likelihoods import IN_ANY_ORDER
from omnijax.sweep.numbers import duration, quantity, share, signed, told
from omnijax.sweep.statistics import Interval, interval, paired, verdict

ROOM = pathlib.Path(__file__).parent
RESULTS, FIGURES = ROOM / "results", ROOM / "figures"
TABLES = ("results.csv", "curves.csv", "table.csv", "directions.csv")
BLOCK = re.compile(r"(<!-- (?P<kind>[a-z]+) (?P<what>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
Line = dict[str, str]


def number(line: Line, name: str) -> float:
    """A cell as a number; NaN where it is empty."""
    return float(line[name] or "nan")


def spread(line: Line, name: str) -> Interval:
    """A mean and its interval over the seeds."""
    return Interval(*(number(line, f"{name}_{end}") for end in ("mean", "low", "high")), count=int(line["seeds"]))


def baseline(line: Line) -> bool:
    """Whether this is the arm that the others are held against."""
    return number(line, "difference_low") == number(line, "difference_high") == 0


def to_equal_bits(line: Line, name: str, told: Callable[[float], str]) -> str:
    """What was spent until the baseline's bits; in how many seeds, where it wasn't in all."""
    reached, _, seeds = line[f"{name}_reached"].split()
    if reached == "0":
        return "not reached"
    shown = told(number(line, f"{name}_mean"))
    return shown if reached == seeds else f"{shown} ({reached} of {seeds})"


SAID = {"lower": "fewer", "higher": "more"}
COLUMNS: dict[str, tuple[str, Callable[[Line], str]]] = {
    "bits": ("bits per item", lambda line: told(spread(line, "bits"))),
    "unit": ("bits per pixel", lambda line: told(spread(line, "bits_per_unit"))),
    "difference": ("to the baseline", lambda line: "" if baseline(line) else signed(spread(line, "difference"))),
    "verdict": (
        "which is",
        lambda line: "the baseline" if baseline(line) else SAID.get(line["verdict"], line["verdict"]),
    ),
    "exact": ("exact items", lambda line: share(spread(line, "exact"))),
    "raw": ("raw", lambda line: f"{number(line, 'raw_mean'):.3f}"),
    "position": ("of raw: positions", lambda line: f"{number(line, 'position_mean'):.3f}"),
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
"""Heading of a column, and what stands there for a line of table.csv."""


def lines_of(path: pathlib.Path) -> list[Line]:
    """A CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(name: str, form: str, *columns: str) -> Iterator[str]:
    """The lines of a table in Markdown: of these results, in this form."""
    form = form.replace(",anyorder", IN_ANY_ORDER)
    yield "| arm | " + " | ".join(COLUMNS[column][0] for column in columns) + " |"
    yield "|---|" + "--:|" * len(columns)
    for line in lines_of(RESULTS / name / "table.csv"):
        if line["form"] == form and line["seeds"] != "0":
            yield f"| {line['arm']} | " + " | ".join(COLUMNS[column][1](line) for column in columns) + " |"


def directions(name: str) -> Iterator[str]:
    """The lines of a table of what was generated, in percent right, likewise."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in lines_of(RESULTS / name / "directions.csv"):
        found.setdefault(line["arm"], {}).setdefault(line["direction"], []).append(number(line, "accuracy"))
    names = list(dict.fromkeys(direction for arm in found.values() for direction in arm))
    yield "| arm | " + " | ".join(one.replace("->", "→") for one in names) + " |"
    yield "|---|" + "--:|" * len(names)
    for arm, values in found.items():
        yield f"| {arm} | " + " | ".join(share(interval(values[one])) for one in names) + " |"


def against(arm: str, name: str, form: str, pattern: str) -> Iterator[str]:
    """The lines of a table of differences to an arm, over the seeds that both have."""
    bits: dict[str, dict[int, float]] = {}
    for line in lines_of(RESULTS / name / "results.csv"):
        if line["form"] == form and (line["arm"] == arm or fnmatch.fnmatchcase(line["arm"], pattern)):
            bits.setdefault(line["arm"], {})[int(line["seed"])] = number(line, "renormalised_bits")
    yield f"| arm | bits per item | to {arm} | which is |"
    yield "|---|" + "--:|" * 3
    for other, values in bits.items():
        difference, mean = paired(values, bits[arm]), told(interval(list(values.values())))
        word = verdict(difference)
        cells = ("", "the baseline") if other == arm else (signed(difference), SAID.get(word, word))
        yield f"| {other} | {mean} | {' | '.join(cells)} |"


def anchors(modality: str) -> Iterator[str]:
    """The lines of a table of outside anchors, the lowest first."""
    found = [one for one in read_anchors(RESULTS / "anchors.csv") if one.modality == modality]
    yield f"| outside anchor | {found[0].measure} |"
    yield "|---|--:|"
    for one in sorted(found, key=lambda one: one.value):
        if "each alone" not in one.name:
            error = "" if one.standard_error is None else f" ± {one.standard_error:.3f}"
            yield f"| {one.name} | {one.value:.3f}{error} |"


def filled(text: str) -> str:
    """A card with its tables made anew."""
    kinds: dict[str, Callable[..., Iterator[str]]] = {"table": table, "directions": directions}
    kinds |= {"against": against, "anchors": anchors}

    def made(found: re.Match[str]) -> str:
        lines = kinds[found["kind"]](*found["what"].split())
        return found[1] + "".join(f"{line}\n" for line in lines) + "<!-- end -->"

    return BLOCK.sub(made, text)


def add(out: pathlib.Path) -> None:
    """Takes over what a sweep wrote: its CSV files, and those of its figures that a card shows."""
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
    """Writes the cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=pathlib.Path, nargs="+", default=[], metavar="DIR", help="directories of sweeps")
    for out in parser.parse_args().add:
        add(out)
    for card in sorted(ROOM.glob("*.md")):
        card.write_text(filled(card.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
