"""The report: one page that needs nothing else, and every number on it, whatever the data set is."""

from __future__ import annotations

import base64
import copy
import html
import html.parser
import io
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import sys
import wave
from typing import Any

import numpy as np
import PIL.Image
import pytest

from omnijax.errors import DataError, PlatformError
from omnijax.files import line_of, write_object
from omnijax.modalities import Picture, Speech, Text
from omnijax.report import write_report
from omnijax.report.text import beside, percent

SPACE = "\N{NO-BREAK SPACE}"
RUN_NAME = "a <b> & c"
MOODS = ["calm", "<wild> & wet", "grey"]
ACCURACY = {"sky->name": 0.971, "name->sky": 0.943, "name->hum": 0.954, "sky->hum": 0.885}
THROUGH = {name: name.split("->") for name in ACCURACY} | {"sky->hum": ["sky", "name", "hum"]}
COMPLETED = {"sky/left": 0.789, "hum/first": 0.777}
CONFUSION = [[31, 0, 1, 0], [2, 27, 0, 3], [0, 0, 36, 0]]


def piece(text: str) -> str:
    """What some modality shows of a signal."""
    return f'<b class="piece">{html.escape(text)}</b>'


def bits(places: list[float], units: dict[str, float], errors: dict[str, float]) -> dict[str, Any]:
    measured = {"uniform": 16.35, "raw": 9.81, "renormalised": 9.62, "leak": 0.19, "digits": 9.76, "position": 0.05}
    counts = {"structure": 0.5, "items": 16.0, "tokens": 5.0, "exact": 0.25}
    return measured | counts | {"by_place": places, "errors": errors, "units": units, "sources": {}}


def common(split: str) -> dict[str, Any]:
    return {
        "step": 60,
        "checkpoint": "c0ffee",
        "config": "beef",
        "vocabulary": "f00d",
        "split": split,
        "seed": 7,
        "examples": 360,
        "decodable": 0.993,
        "decodable_without_grammar": 0.917,
        "sampling": {"sky": {"temperature": 0.9}},
        "device": "cpu",
        "seconds": 61.0,
    }


def weather() -> tuple[dict[str, Any], dict[str, Any]]:
    """A data set with classes, a judge of each field, and one field that loses something: eval.json, examples.json."""
    judged: dict[str, Any] = {"standard_error": 0.0123, "chance": 0.333, "shuffled": 0.312, "confusion": CONFUSION}
    shares = {"examples": 350, "decodable": 0.99, "decodable_without_grammar": 0.976}
    directions = {
        name: shares | judged | {"through": THROUGH[name], "accuracy": accuracy, "judge": 0.967, "metrics": {}}
        for name, accuracy in ACCURACY.items()
    }
    for name in ("name->hum", "sky->hum"):
        directions[name] |= {"judge_coded": 0.917, "metrics": {"loudness_<ratio>": 1.234}}
    completed = {"standard_error": 0.0234, "blank_accuracy": 0.314, "blank_standard_error": 0.0241}
    completed |= {"examples": 1360, "decodable": 0.999, "metrics": {}}
    evaluation = common("validation") | {
        "label": "mood",
        "classes": MOODS,
        "directions": directions,
        "completions": {name: completed | {"accuracy": accuracy} for name, accuracy in COMPLETED.items()},
        "bits_per_item": {
            "sky": bits([4.1, 5.66], {"dot": 2.405}, {"position": 0.0123, "digit_1": 0.5432, "digit_0": 0.25}),
            "sky, any order|name": bits([4.1, 5.66], {"tile": 38.5}, {"digit_0": 0.2, "check": 0.125}),
            "name": bits([], {}, {"general": 0.067}),
        },
        "anchors": {"sky": {"unit": "dot", "zlib": 3.1415, "a<b": 4.5}, "name": {"unit": "byte", "zlib": 9.0}},
        "tests": {
            "place": {
                "sky->name": {"accuracy": 0.5, "interval": [0.41, 0.59], "top_1": 0.52, "top_5": 0.83, "examples": 1234}
                | {"decodable": 1.0, "judge": 0.96, "anchors": {"nearest <sky>": 0.25}},
                "sky->hum": {"decodable": 0.75, "examples": 12, "anchors": {}},
            },
            "hour": {"name->sky": {"examples": 0}},
        },
    }
    classes = [0, 1, 2, 0, 1, 2, 0]
    read = [0, 2, -1, 0, 1, 2, 1]

    def made(name: str) -> list[dict[str, Any]]:
        return [
            {
                "record": 40 + number,
                "class": label,
                "given": piece(f"{name} given {number}"),
                "made": None if number == 5 else piece(f"{name} made {number}"),
                "real": piece(f"{name} real {number}"),
                "judged": judge,
                "credit": f"by <{name}>",
            }
            for number, (label, judge) in enumerate(zip(classes, read, strict=True))
        ]

    way = {"between": {"name": piece("on the way")}, "nearest": {"html": piece("much alike"), "credit": "by another"}}
    held_out = {"place/sky->name": made("sky->name"), "place/sky->hum": [one | way for one in made("sky->hum")]}
    held_out["place/sky->hum"][0] |= {"real": None, "between": {"name": None}}

    examples = {
        "directions": {name: made(name) for name in ACCURACY},
        "completions": {name: made(name) for name in COMPLETED},
        "held_out": held_out,
        "real": {
            field: [
                {
                    "class": label,
                    "real": piece(f"{field} {n}"),
                    "coded": piece(f"coded {n}") if field == "hum" else None,
                }
                for n, label in enumerate(classes)
            ]
            for field in ("sky", "hum", "name")
        },
    }
    return evaluation, examples


def tables() -> tuple[dict[str, Any], dict[str, Any]]:
    """A data set with neither classes nor judges."""
    through = {"note->grid": ["note", "grid"], "sketch->grid": ["sketch", "note", "grid"]}
    figures = {"examples": 50, "decodable": 0.98, "decodable_without_grammar": 0.71, "metrics": {"cells_right": 0.625}}
    evaluation = common("test/old") | {
        "label": "",
        "classes": [],
        "directions": {name: figures | {"through": way} for name, way in through.items()},
        "completions": {"grid/top": {"examples": 9, "decodable": 1.0, "metrics": {"cells_right": 0.5}}},
        "bits_per_item": {"grid": bits([float(place) for place in range(30)], {}, {"digit_11": 0.5, "digit_2": 0.4})},
        "anchors": {},
    }
    entries = {
        name: [
            {
                "record": record,
                "class": None,
                "given": piece(f"given {record}"),
                "made": piece(f"{name} made {record}"),
                "real": piece(f"real {record}"),
                "judged": None,
            }
            for record in range(3, 30)
        ]
        for name in (*through, "grid/top")
    }
    examples = {
        "directions": {name: entries[name] for name in through},
        "completions": {"grid/top": entries["grid/top"]},
        "real": {"grid": [{"class": None, "record": 3, "real": piece("real 3"), "coded": piece("coded 3")}]},
    }
    return evaluation, examples


def write_run(
    directory: pathlib.Path, measured: tuple[dict[str, Any], dict[str, Any]], kinds: tuple[str, ...]
) -> pathlib.Path:
    """A run directory with the files of training and evaluation, its losses split into `kinds`."""
    directory.mkdir()
    split = {f"loss/{kind}": 1.0 for kind in kinds}
    logged = {"seconds": 9.0, "tokens_per_second": 5e4, "loss": 2.0} | split
    (directory / "metrics.jsonl").write_bytes(b"".join(line_of({"step": step} | logged) for step in (20, 40, 60, 60)))
    write_object(directory / "config.json", {"model": {"depth": 4}, "note": "</pre><script>"})
    run = {"command": "omnijax train 'a <b>.py'", "versions": {"jax": "0.10.2"}, "device": "cpu"}
    run |= {"parameters": 12_345, "vocabulary_size": 321}
    write_object(directory / "run.json", run)
    for name, content in zip(("eval.json", "examples.json"), measured, strict=True):
        write_object(directory / name, content)
    return directory


@pytest.fixture(scope="module")
def classed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    kinds = ("general", "position", "aos", "control", "digit_0", "digit_1")
    return write_report(write_run(tmp_path_factory.mktemp("runs") / RUN_NAME, weather(), kinds))


@pytest.fixture(scope="module")
def classless(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_report(write_run(tmp_path_factory.mktemp("runs") / "run", tables(), ()))


class Outline(html.parser.HTMLParser):
    """Follows open tags; keeps all addresses, identifiers, and the cells of table rows by section."""

    VOID = frozenset({"meta", "img", "br", "source"})

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.anchors: list[str] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data", "poster")]
        self.anchors += [value or "" for key, value in attrs if key == "id"]
        if tag == "tr":
            self.rows.setdefault(self.anchors[-1], []).append([])
        if tag in ("th", "td"):
            self.rows[self.anchors[-1]][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.rows[self.anchors[-1]][-1][-1] += data


@pytest.mark.parametrize("name", ["classed", "classless"])
def test_page_is_well_formed_and_needs_nothing_else(name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    outline, text = Outline(path), path.read_text(encoding="utf-8")
    assert outline.open == []
    assert outline.addresses
    assert all(address.startswith("data:") for address in outline.addresses)
    assert not re.search(r"https?://|file:|@import|url\(", text)
    assert len(outline.anchors) == len(set(outline.anchors)) == (11 if name == "classed" else 8)
    assert text.count("<script>") == 1


def test_figures_are_valid_on_the_page_and_on_disk(classed: pathlib.Path) -> None:
    embedded = [address for address in Outline(classed).addresses if address.startswith("data:image/png")]
    on_disk = sorted((classed.parent / "figures").glob("*.png"))
    expected = {"loss_kinds", "loss_digits"}
    assert {path.stem for path in on_disk} == expected | {f"{name}_dark" for name in expected}
    contents = [base64.b64decode(address.partition(",")[2]) for address in embedded]
    for content in [*contents, *(path.read_bytes() for path in on_disk)]:
        with PIL.Image.open(io.BytesIO(content)) as image:
            assert image.format == "PNG"
            image.load()
    assert {path.read_bytes() for path in on_disk} <= set(contents)


def test_table_has_every_direction_with_its_numbers(classed: pathlib.Path) -> None:
    head, *rows = Outline(classed).rows["directions"]
    assert len(rows) == len(ACCURACY)
    for (name, accuracy), row in zip(ACCURACY.items(), rows, strict=True):
        found = dict(zip(head, row, strict=True))
        assert found[""] == name.replace("->", " → ")
        assert found["by way of"] == ("name" if name == "sky->hum" else "")
        assert found["accuracy"] == f"{percent(accuracy)} ± 1.2"
        assert (found["shuffled"], found["judge"]) == (percent(0.312), percent(0.967))
        assert found["judge, coded"] == (percent(0.917) if "hum" in name.split("->")[1] else "")
        assert (found["decodable"], found["without grammar"]) == (percent(0.99), percent(0.976))
        assert found["other figures"] == ("loudness <ratio> 1.23" if name.endswith("hum") else "")
        assert found["records"] == "350"
    text = classed.read_text(encoding="utf-8")
    assert text.count('title="chance: 33.3') == text.count('title="judge: 96.7') == len(ACCURACY)
    assert f"{percent(0.993)} are decodable with the grammar, and {percent(0.917)} without" in text


def test_without_judges_the_modalitys_own_figures_stand_in_the_table(classless: pathlib.Path) -> None:
    outline = Outline(classless)
    head, *rows = outline.rows["directions"]
    assert head == ["", "decodable", "without grammar", "other figures", "by way of", "records"]
    shares = [percent(0.98), percent(0.71), "cells right 0.625"]
    assert rows == [["note → grid", *shares, "", "50"], ["sketch → grid", *shares, "note", "50"]]
    assert outline.rows["completions"][1] == ["grid from its top half", percent(1), "cells right 0.5", "9"]
    assert "confusion" not in outline.anchors
    body = classless.read_text(encoding="utf-8").partition("<body>")[2]
    assert not re.search(r"accuracy|read as|Judge|chance", body)


def test_cards_show_signals_and_what_the_judge_read(classed: pathlib.Path) -> None:
    rows = Outline(classed).rows["examples"]
    name = "sky->hum"
    place = rows.index([f"{name} given 0", f"{name} made 0", f"{name} real 0", "✓ calm"])
    assert rows[place - 1] == ["sky given", "hum generated", "real hum", "judge"]
    assert rows[place + 1 : place + 3] == [
        [f"{name} given 1", f"{name} made 1", f"{name} real 1", "✗ read as grey, is <wild> & wet"],
        [f"{name} given 2", f"{name} made 2", f"{name} real 2", "✗ no mood, is grey"],
    ]
    assert len(rows) == (1 + len(MOODS)) * len(ACCURACY)  # the first example of each class


def test_cards_without_classes_show_the_first_records(classless: pathlib.Path) -> None:
    rows = Outline(classless).rows["examples"]
    assert rows[0] == ["note given", "grid generated", "real grid"]
    assert rows[1:6] == [[f"given {n}", f"note->grid made {n}", f"real {n}"] for n in range(3, 8)]
    assert rows[6] == ["sketch given", "grid generated", "real grid"]


def test_real_and_generated_signals_stand_by_class(classed: pathlib.Path) -> None:
    rows = Outline(classed).rows["samples"]
    generated = ["generated, name → hum", "generated, sky → hum"]
    place = rows.index(["", "real", "encoded and decoded", *generated])
    for number, mood in enumerate(MOODS):
        line = rows[place + 1 + number]
        assert line[:2] == [mood, "".join(f"hum {n}" for n in range(number, 7, 3))]
        assert line[2] == "".join(f"coded {n}" for n in range(number, 7, 3))
    assert rows[place + 3][3] == "name->hum made 2can’t be decoded"
    assert ["", "real", "generated, sky → name"] in rows
    text = classed.read_text(encoding="utf-8").partition('id="samples"')[2].partition("</section>")[0]
    framed = re.findall(r'<span class="framed"><b class="piece">([^<]*)</b>', text)
    assert sorted(framed) == sorted(html.escape(f"{name} made {n}") for name in ACCURACY for n in (6, 1, 2))


def test_real_and_generated_signals_stand_by_record_where_there_are_no_classes(classless: pathlib.Path) -> None:
    head, *rows = Outline(classless).rows["samples"]
    assert head == ["", "real", "encoded and decoded", "generated, note → grid", "generated, sketch → grid"]
    assert rows[0] == ["record 3", "real 3", "coded 3", "note->grid made 3", "sketch->grid made 3"]
    assert len(rows) == 10
    for row in rows[1:]:
        record = row[0].removeprefix("record ")
        assert row[1:] == [f"real {record}", "", f"note->grid made {record}", f"sketch->grid made {record}"]


def test_a_grid_of_large_signals_is_cut(tmp_path: pathlib.Path) -> None:
    evaluation, examples = weather()
    for entry in examples["real"]["sky"]:
        entry["real"] = piece("x" * 200_000)
    page = write_report(write_run(tmp_path / "run", (evaluation, examples), ()))
    rows = Outline(page).rows["samples"]
    longest = [cell.count("x") // 200_000 for row in rows for cell in row if "xx" in cell]
    assert longest == [1, 1, 1]


def test_completions_stand_beside_what_is_left_blank(classed: pathlib.Path) -> None:
    rows = Outline(classed).rows["completions"]
    assert rows[0] == ["", "accuracy", "blank", "decodable", "records"]
    told = ("sky from its left half", "hum from its first half")
    for row, title, (name, accuracy) in zip(rows[1:3], told, COMPLETED.items(), strict=True):
        assert row == [title, f"{percent(accuracy)} ± 2.3", f"{percent(0.314)} ± 2.4", percent(0.999), "1,360"]
        assert [f"{name} given 0", f"{name} made 0", f"{name} real 0", "✓ calm"] in rows


def test_held_out_kinds_have_a_table_and_examples(classed: pathlib.Path) -> None:
    rows = Outline(classed).rows["unseen"]
    right = f"{percent(0.5)} ({percent(0.41)} to {percent(0.59)})"
    shares = [percent(share) for share in (0.52, 0.83, 0.96, 1, 0.25)]
    assert rows[:4] == [
        ["", "right", "ranked first", "among the first 5", "judge", "decodable", "nearest <sky>", "records"],
        ["place: sky → name", right, *shares, "1,234"],
        ["place: sky → hum", "", "", "", "", percent(0.75), "", "12"],
        ["hour: name → sky", "", "", "", "", "", "", "0"],
    ]
    assert ["sky given", "name generated", "hum generated", "real hum", "judge", "nearest in training"] in rows
    assert ["sky->hum given 0", "", "sky->hum made 0", "", "✓ calm", "much alike"] in rows


def test_credits_name_every_source_of_a_signal(classed: pathlib.Path, classless: pathlib.Path) -> None:
    text = classed.read_text(encoding="utf-8")
    for name in (*ACCURACY, *COMPLETED):
        assert html.escape(f"by <{name}>") in text
    assert "by another" in text
    assert 'id="credits"' not in classless.read_text(encoding="utf-8")


def test_confusion_matrices_hold_the_counts(classed: pathlib.Path) -> None:
    rows = Outline(classed).rows["confusion"]
    assert len(rows) == 4 * len(ACCURACY)
    assert rows[0] == ["", *MOODS, "–"]
    for row, mood, counts in zip(rows[1:4], MOODS, CONFUSION, strict=True):
        assert row == [mood, *(str(count) if count else "" for count in counts)]


def test_of_many_classes_the_most_frequent_mistakes_are_listed(tmp_path: pathlib.Path) -> None:
    evaluation, examples = weather()
    evaluation["classes"] = [f"kind {n}" for n in range(30)]
    counts = 9 * np.eye(30, 31, dtype=int)
    counts[4, 5], counts[6, 30], counts[2, 1] = 3, 5, 4
    for entry in evaluation["directions"].values():
        entry["confusion"] = counts.tolist()
    page = write_report(write_run(tmp_path / "run", (evaluation, examples), ()))
    mistakes = [["kind 6", "–", "5"], ["kind 2", "kind 1", "4"], ["kind 4", "kind 5", "3"]]
    assert Outline(page).rows["confusion"][:4] == [["true", "read as", "records"], *mistakes]


def test_bits_stand_by_form_and_per_unit_beside_the_anchors(classed: pathlib.Path) -> None:
    rows = Outline(classed).rows["bits"]
    numbers = ["16.350", "9.810", "9.620", "0.190", "9.760", "0.050"]
    assert rows[1] == ["sky", *numbers, "4.10 · 5.66"]
    assert rows[2] == ["sky, any order given name", *numbers, "4.10 · 5.66"]
    assert rows[3] == ["name", *numbers, ""]
    assert rows[4:] == [
        ["bits per natural unit", "this model", "zlib", "a<b"],
        ["sky", "2.405 bits per dot", "3.142", "4.500"],
        ["sky, any order given name", "38.500 bits per tile", "", ""],
    ]


def test_errors_stand_by_digit_place_and_kinds_that_are_not_there_are_left_out(
    classed: pathlib.Path, classless: pathlib.Path
) -> None:
    rows = Outline(classed).rows["errors"]
    assert rows[0] == ["wrong", "digit 0", "digit 1", "check digit", "position", "general token"]
    assert rows[1] == ["sky", percent(0.25), percent(0.5432), "", percent(0.0123), ""]
    assert rows[3] == ["name", "", "", "", "", percent(0.067)]
    assert Outline(classless).rows["errors"] == [["wrong", "digit 2", "digit 11"], ["grid", percent(0.4), percent(0.5)]]


def test_the_split_is_named(classed: pathlib.Path, classless: pathlib.Path) -> None:
    for page, split, other in ((classed, "validation", "test"), (classless, "test/old", "validation")):
        text = page.read_text(encoding="utf-8")
        assert f"360 records of the {split} split" in text
        assert f"the {other} split" not in text
        assert not re.search(r"held.out", text)


def test_how_it_was_made(classed: pathlib.Path) -> None:
    text = classed.read_text(encoding="utf-8")
    for told in (
        "seed 7",
        "jax 0.10.2",
        "sky: temperature 0.9",
        f"61{SPACE}s on cpu",
    ):
        assert told in text


def test_text_of_the_run_is_escaped(tmp_path: pathlib.Path) -> None:
    evaluation, examples = copy.deepcopy(weather())
    evaluation = json.loads(json.dumps(evaluation).replace("hum", "<i>hum").replace("mood", "<i>mood"))
    examples = json.loads(json.dumps(examples).replace('->hum"', '-><i>hum"').replace('"hum', '"<i>hum'))
    for entry in evaluation["directions"].values():
        entry["through"] = [field.replace("name", "<i>name") for field in entry["through"]]
    evaluation |= {"split": "<i>test", "sampling": {"<i>sky": {"<i>": 1}}}
    evaluation["bits_per_item"]["sky"]["units"] = {"<i>dot": 1.0}
    page = write_report(write_run(tmp_path / RUN_NAME, (evaluation, examples), ()))
    text = page.read_text(encoding="utf-8")
    assert "<i>" not in text
    assert "a &lt;b&gt; &amp; c" in text
    assert RUN_NAME not in text
    assert "a &lt;b&gt;.py" in text
    assert "a <b>.py" not in text
    assert "<wild>" not in text


def test_the_page_is_the_same_each_time(classed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run = tmp_path / RUN_NAME
    shutil.copytree(classed.parent, run, ignore=shutil.ignore_patterns("figures", "report.html"))
    assert write_report(run).read_bytes() == classed.read_bytes()


@pytest.mark.parametrize("kinds", [(), ("digit_0", "digit_1")])
def test_absent_kinds_of_loss_and_nothing_generated(tmp_path: pathlib.Path, kinds: tuple[str, ...]) -> None:
    evaluation, _ = weather()
    evaluation |= {"directions": {}, "completions": {}, "tests": {}}
    examples = {"directions": {}, "completions": {}, "real": {}}
    page = write_report(write_run(tmp_path / "run", (evaluation, examples), kinds))
    assert Outline(page).anchors == ["loss", "bits", "errors", "making"]
    assert "One model for sky and name" in page.read_text(encoding="utf-8")
    assert (page.parent / "figures/loss_kinds.png").is_file()
    assert (page.parent / "figures/loss_digits.png").is_file() == ("digit_0" in kinds)


FILES = ["run.json", "config.json", "eval.json", "examples.json"]
DAMAGED = [*itertools.product(FILES, ["missing", "truncated", "binary"]), ("metrics.jsonl", "missing")]


@pytest.mark.parametrize("name, damage", DAMAGED)
def test_missing_or_damaged_file_is_named(
    classed: pathlib.Path, tmp_path: pathlib.Path, name: str, damage: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(classed.parent, run, ignore=shutil.ignore_patterns("figures", "report.html"))
    content = (run / name).read_bytes()
    (run / name).unlink()
    if damage != "missing":
        (run / name).write_bytes(content[: len(content) // 2 - 9] if damage == "truncated" else b"\xff\xfe" + content)
    with pytest.raises(DataError, match=f"{re.escape(name)}.*Fix: run `omnijax"):
        write_report(run)
    assert not (run / "report.html").exists()
    assert not (run / "figures").exists()


@pytest.mark.parametrize(
    ("file", "part", "name", "key"),
    [
        ("eval.json", "", "", "split"),
        ("eval.json", "directions", "sky->hum", "through"),
        ("eval.json", "directions", "sky->hum", "confusion"),
        ("eval.json", "bits_per_item", "name", "units"),
        ("eval.json", "anchors", "sky", "unit"),
        ("examples.json", "", "", "real"),
        ("examples.json", "directions", "sky->hum", "judged"),
        ("examples.json", "real", "hum", "coded"),
    ],
)
def test_missing_measure_is_named(tmp_path: pathlib.Path, file: str, part: str, name: str, key: str) -> None:
    contents = dict(zip(("eval.json", "examples.json"), weather(), strict=True))
    entry = contents[file][part][name] if part else contents[file]
    del (entry[-1] if isinstance(entry, list) else entry)[key]
    run = write_run(tmp_path / "run", (contents["eval.json"], contents["examples.json"]), ())
    at = f"{part}.{name}." if part else ""
    with pytest.raises(DataError, match=rf"{re.escape(f'{file}:{at}')}(\d+\.)?{key} .*Fix: run `omnijax evaluate`"):
        write_report(run)
    assert not (run / "figures").exists()


def test_a_library_that_is_not_installed_is_named(
    classed: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(classed.parent, run, ignore=shutil.ignore_patterns("figures", "report.html"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlatformError, match=r"matplotlib.*omnijax\[demo\]"):
        write_report(run)
    assert not (run / "report.html").exists()
    assert not (run / "figures").exists()


def test_importing_the_report_needs_no_extra() -> None:
    code = "import sys; sys.modules['matplotlib'] = sys.modules['PIL'] = None; import omnijax.report"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def addresses(piece: str, mime: str) -> list[bytes]:
    """Files of a kind inside a piece of HTML."""
    return [base64.b64decode(found) for found in re.findall(rf"data:{mime};base64,([^\"]*)", piece)]


@pytest.mark.parametrize(
    ("picture", "size"),
    [
        (Picture(height=8, width=8, levels=17), (64, 64)),
        (Picture(height=5, width=30, channels=3), (60, 10)),
        (Picture(height=64, width=48, channels=4), (48, 64)),
        (Picture(height=4, width=6, channels=2, levels=1000), (60, 20)),
    ],
)
def test_a_picture_is_shown_pixel_by_pixel(picture: Picture, size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    shape = (picture.height, picture.width, picture.channels)[: 2 if picture.channels == 1 else 3]
    signal = random.integers(0, picture.levels, shape).astype(np.uint16 if picture.levels > 256 else np.uint8)
    shown = picture.html(signal, 'a "label" <b>')
    assert 'alt="a &quot;label&quot; &lt;b&gt;"' in shown
    assert f'width="{size[0]}" height="{size[1]}"' in shown
    assert ("pixels" in shown) == (size[0] > picture.width)
    (file,) = addresses(shown, "image/png")
    with PIL.Image.open(io.BytesIO(file)) as image:
        found = np.asarray(image)
    expected = np.rint(signal * (255 / (picture.levels - 1))).astype(np.uint8)
    if picture.channels == 2:
        expected = np.concatenate([expected[..., 0], expected[..., 1]], axis=1)
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("samples", [1, 3000, 30_000])
def test_a_player_holds_the_waveform(samples: int) -> None:
    signal = (0.5 * np.sin(2 * np.pi * 440 * np.arange(samples) / 11025 + 1)).astype(np.float32)
    shown = Speech().html(signal, 'a "label" <b>')
    assert "Play a &quot;label&quot; &lt;b&gt;, " in shown
    (file,) = addresses(shown, "audio/wav")
    with wave.open(io.BytesIO(file)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (11025, 1, 2)
        found = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    np.testing.assert_allclose(found / 32767, signal, atol=1 / 32767)
    (file,) = addresses(shown, "image/png")
    with PIL.Image.open(io.BytesIO(file)) as image:
        loudness = np.asarray(image)[..., 3]
    assert loudness.shape[0] == 40
    if samples > 1000:  # a tone of 440 Hz lies among the low bands, which are drawn below
        assert loudness.max() == 255
        assert loudness.mean(axis=1).argmax() > 20


def test_silence_and_nothing_are_shown() -> None:
    assert "audio" in Speech().html(np.zeros(3000, np.float32), "silence")
    assert "no sound" in Speech().html(np.zeros(0, np.float32), "nothing")
    assert "nothing" in Text().html("", "nothing")
    assert "&lt;b&gt;" in Text().html("<b>", "text")


def test_the_style_knows_what_modalities_show() -> None:
    shown = [
        Picture().html(np.zeros((8, 8), np.uint8), ""),
        Speech().html(np.ones(3000, np.float32), ""),
        Speech().html(np.zeros(0, np.float32), ""),
        Text().html("word", ""),
    ]
    classes = {name for one in shown for found in re.findall(r'class="([^"]*)"', one) for name in found.split()}
    assert classes >= {"tile", "pixels", "player", "word", "nothing"}
    assert all(f".{name}" in beside("style.css") for name in classes)
