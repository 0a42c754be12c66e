"""Tables and report of a sweep, made from invented results."""

from __future__ import annotations

import csv
import html.parser
import io
import math
import pathlib
import re
import shutil
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest

from experiments.anchors import write_anchors
from omnijax.errors import DataError
from omnijax.files import read_object, write_object
from omnijax.report.curves import Line, spread
from omnijax.report.theme import DARK, LIGHT
from omnijax.sweep import figures, page
from omnijax.sweep.anchors import Anchor
from omnijax.sweep.comparison import Row, crossing, read_results, rows_of, write_tables
from omnijax.sweep.statistics import Interval, interval, quantity, share, told
from omnijax.sweep.sweep import load_sweep

ROOT = pathlib.Path(__file__).parents[1]
BASES = (2, 4, 9, 16, 64, 256, 512, 4096)
ARMS = (*(f"base={base}" for base in BASES), "flat")
SIZE = 83_521
DIGITS = 5e-7
"""Relative; the CSV files have seven digits."""
LOSSLESS = {"image": ("pixel", 4), "text": ("byte", 1)}
FORMS = {"image": 16.0, "text": 4.0, "image|text": 16.0}


def made_up(arm: str, seed: int, forms: Collection[str] = tuple(FORMS)) -> dict[str, Any]:
    """A result as a run writes it, with figures that are plausible: small bases cost more, and learn a bit faster."""
    rng = np.random.default_rng([sum(map(ord, arm)), seed])
    points = 8
    base = SIZE if arm == "flat" else int(re.findall(r"\d+", arm)[0])
    places = max(1, math.ceil(math.log(SIZE, base) - 1e-9))
    tokens = places + 1
    cost = tokens * (1.0 + base / 20_000)
    # What a seed brings by itself is the same in every arm.
    shared = 0.05 * np.random.default_rng(seed).normal()
    final = 8.0 + 0.06 * abs(math.log2(base) - 6.5) + 0.012 * rng.normal() + shared
    items, steps = 2_000_000, 1500
    curve = [
        {
            "step": steps * k // points,
            "items": items * k // points,
            "seconds": 30.0 * cost * k / points,
            "flops": 4e12 * cost * k / points,
            "bits": {
                form: (final + 2.2 * (1 - k / points) ** 2) * (0.2 if form.startswith("text") else 1.0)
                for form in forms
            },
        }
        for k in range(1, points + 1)
    ]
    bits = {}
    for form in forms:
        value, alone = curve[-1]["bits"][form], form.startswith("text")
        each = value / places
        errors = {"general": 0.1} if alone else {f"digit_{k}": 0.3 + 0.4 * k / places for k in range(places)}
        bits[form] = {
            "raw": value + 0.01 * places,
            "renormalised": value,
            "leak": 0.01 * places,
            "digits": 0.0 if alone else value,
            "position": 0.0 if alone else 0.02,
            "by_place": [] if alone else [each] * places,
            "structure": 0.4,
            "items": FORMS[form],
            "tokens": 1.0 if alone else float(tokens),
            "uniform": math.log2(SIZE),
            "errors": errors,
            "exact": 0.9 if alone else 0.21 + 0.01 * rng.random(),
        }
        unit, size = LOSSLESS.get(form, ("", 0))
        bits[form]["units"] = {unit: value / size} if unit else {}
    speed = 20_000 / cost * (1 + 0.05 * rng.random())
    return {
        "arm": arm,
        "seed": seed,
        "data": {"fragments": "a" * 64, "heldout": "b" * 64, "order": f"{seed}" * 64},
        "bits": bits,
        "speed": {
            "items_per_second": speed,
            "tokens_per_second": speed * tokens,
        },
        "cost": {
            "parameters": 700_000 + 256 * base,
            "training_flops_per_item": 1e6 * cost,
            "peak_bytes": 90_000_000 + 1000 * base,
        },
        "curve": curve,
        "accuracies": {
            route: {"accuracy": accuracy, "standard_error": 0.01}
            for route, accuracy in {"image->text": 0.93 + 0.01 * rng.random(), "text->image": 0.9}.items()
        },
        "device": "2 CPU cores",
        "versions": {"omnijax": "0.1", "jax": "0.10.2"},
        "command": f"omnijax sweep experiments/ablations/base_size.py --arm {arm} --seed {seed}",
    }


def write_sweep(
    out: pathlib.Path,
    arms: Collection[str] = ARMS,
    seeds: int = 3,
    budget: str = "items",
    forms: Collection[str] = tuple(FORMS),
) -> None:
    """The directory of a sweep that has ended."""
    config = {"optim": {"learning_rate": 3e-3}, "model": {"depth": 4, "head": "token"}}
    sweep = {
        "question": "Does a small base learn as much from the same <items> as a flat softmax?",
        "budget": {"kind": budget, "amount": 2e6},
        "baseline": "base=16",
        "seeds": list(range(seeds)),
        "arms": dict.fromkeys(arms, config),
        "tasks": ["bits", "directions"],
    }
    out.mkdir(parents=True, exist_ok=True)
    write_object(out / "sweep.json", sweep)
    for arm in arms:
        for seed in range(seeds):
            put(out, made_up(arm, seed, forms))


def put(out: pathlib.Path, result: dict[str, Any]) -> None:
    directory = out / "arms" / result["arm"] / f"seed{result['seed']}"
    directory.mkdir(parents=True, exist_ok=True)
    write_object(directory / "result.json", result)


ANCHORS = [
    Anchor("PNG, each alone", "image", "bits per pixel", 14.05, 0.02, "whole files; best of several"),
    Anchor("brotli, one stream", "image", "bits per pixel", 2.57, None, "all pictures in one"),
    Anchor("histogram of independent pixels", "image", "bits per pixel", 2.43, 0.01, "counts of levels"),
    Anchor("class histogram of neighbouring pixels", "image", "bits per pixel", 2.04, 0.01, "a mixture"),
    Anchor("word histogram", "text", "bits per byte", 0.66, 0.005, "how often each word comes"),
    Anchor("FLAC, each alone", "speech", "bits per sample", 10.99, 0.05, "whole files"),
    Anchor("support-vector machine", "image->text", "accuracy", 0.978, 0.008, "pixels"),
]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("sweeps") / "base_size"
    write_sweep(out)
    write_anchors(ANCHORS, out / "anchors.csv")
    write_tables(out)
    page.write_report(out)
    return out


class Page(html.parser.HTMLParser):
    """Tags that are open, what is loaded from elsewhere, and the text."""

    void = {"meta", "img", "source", "br"}

    def __init__(self, source: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value for name, value in attrs if name in ("src", "srcset", "href") and value]
        if tag not in self.void:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] != "style":
            self.text += data


def read_page(out: pathlib.Path) -> Page:
    return Page((out / "report.html").read_text(encoding="utf-8"))


def lines_of(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_page_needs_nothing_else_and_says_what_was_asked(ended: pathlib.Path) -> None:
    found = read_page(ended)
    assert not found.stack
    assert found.loaded
    assert all(one.startswith("data:image/png;base64,") for one in found.loaded)
    for said in (
        *("same <items> as a flat softmax?", "2\N{NO-BREAK SPACE}M items", "27 of 27", "fewer bits", "more bits"),
        *(*ARMS, "2 CPU cores", "image given text", "omnijax 0.1", "--arm base=2", "Equal in all arms, by SHA-256"),
        *(
            "histogram of independent pixels",
            "PNG, each alone",
            "14.050",
            "whole files",
            "support-vector machine",
            "97.8",
        ),
    ):
        assert said in found.text, said
    assert "FLAC" not in found.text, "the unit of no form"
    drawn = {path.name for path in (ended / "figures").glob("*.png")}
    wanted = {f"{kind}_image.png" for kind in ("base", "arms", "seconds", "flops", "unit")}
    assert wanted <= drawn
    assert {name.replace(".png", "_dark.png") for name in wanted} <= drawn


def test_the_arms_of_base_size_have_their_place_in_the_figures(tmp_path: pathlib.Path) -> None:
    arms = load_sweep(ROOT / "experiments" / "ablations" / "base_size.py").arms
    write_sweep(tmp_path, arms, seeds=2, forms=("image",))
    page.write_report(tmp_path)
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert {f"{kind}_image.png" for kind in ("base", "arms", "seconds", "flops")} <= drawn


def test_results_csv_has_a_line_for_every_arm_seed_and_form(ended: pathlib.Path) -> None:
    lines = lines_of(ended / "results.csv")
    assert len(lines) == len(ARMS) * 3 * len(FORMS)
    assert len({(line["arm"], line["seed"], line["form"]) for line in lines}) == len(lines)
    line = next(one for one in lines if (one["arm"], one["seed"], one["form"]) == ("base=256", "1", "image"))
    run = made_up("base=256", 1)
    entry = run["bits"]["image"]
    assert float(line["renormalised_bits"]) == pytest.approx(entry["renormalised"], rel=DIGITS)
    assert float(line["raw_bits"]) == pytest.approx(entry["raw"], rel=DIGITS)
    assert float(line["items_of_segment"]) == 16
    assert float(line["items"]) == run["curve"][-1]["items"]
    assert float(line["exact"]) == pytest.approx(entry["exact"], rel=DIGITS)
    assert float(line["digit_1_error"]) == pytest.approx(entry["errors"]["digit_1"], rel=DIGITS)
    assert float(line["digit_2_bits"]) == pytest.approx(entry["by_place"][2], rel=DIGITS)
    assert line["digit_3_bits"] == "", "base 256 has three places"
    assert float(line["bits_per_unit"]) == pytest.approx(entry["units"]["pixel"], rel=DIGITS)
    assert float(line["tokens_per_item"]) == float(line["steps_per_item"]) == entry["tokens"]
    assert float(line["peak_bytes"]) == run["cost"]["peak_bytes"]
    assert next(one for one in lines if one["form"] == "image|text")["bits_per_unit"] == ""


def test_curves_csv_has_a_line_for_every_checkpoint(ended: pathlib.Path) -> None:
    lines = lines_of(ended / "curves.csv")
    runs = [made_up(arm, seed) for arm in ARMS for seed in range(3)]
    assert len(lines) == sum(len(run["curve"]) for run in runs)
    point = made_up("base=256", 1)["curve"][-1]
    line = [one for one in lines if (one["arm"], one["seed"]) == ("base=256", "1")][-1]
    assert set(line) == {"arm", "seed", "step", "items", "seconds", "flops", *FORMS}
    assert float(line["step"]) == point["step"]
    assert float(line["seconds"]) == pytest.approx(point["seconds"], rel=DIGITS)
    assert float(line["image"]) == pytest.approx(point["bits"]["image"], rel=DIGITS)


def test_directions_csv_has_what_was_generated(ended: pathlib.Path) -> None:
    lines = lines_of(ended / "directions.csv")
    assert len(lines) == 2 * len(ARMS) * 3
    line = next(one for one in lines if (one["arm"], one["seed"]) == ("flat", "2"))
    wanted = made_up("flat", 2)["accuracies"][line["direction"]]
    assert float(line["accuracy"]) == pytest.approx(wanted["accuracy"], rel=DIGITS)
    assert float(line["standard_error"]) == wanted["standard_error"]


def test_a_head_that_emits_an_item_steps_once(ended: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "sweep"
    shutil.copytree(ended, out)
    sweep = read_object(out / "sweep.json", (), "")
    sweep["arms"]["base=2"]["model"]["head"] = "depth"
    write_object(out / "sweep.json", sweep)
    write_tables(out)
    lines = {(line["arm"], line["form"]): line for line in lines_of(out / "table.csv")}
    assert lines["base=2", "image"]["steps_per_item"] == "1"
    for arm in ("base=2", "base=16"):
        assert float(lines[arm, "image"]["tokens_per_item"]) == made_up(arm, 0)["bits"]["image"]["tokens"]
    assert lines["base=16", "image"]["steps_per_item"] == lines["base=16", "image"]["tokens_per_item"]


def test_table_csv_has_means_intervals_and_differences(ended: pathlib.Path) -> None:
    lines = {(line["arm"], line["form"]): line for line in lines_of(ended / "table.csv")}
    assert len(lines) == len(ARMS) * len(FORMS)
    line = lines["base=64", "image"]
    values = [made_up("base=64", seed)["bits"]["image"]["renormalised"] for seed in range(3)]
    base = [made_up("base=16", seed)["bits"]["image"]["renormalised"] for seed in range(3)]
    wanted = interval(values)
    found = [float(line[f"bits_{end}"]) for end in ("mean", "low", "high")]
    assert found == pytest.approx([wanted.mean, wanted.low, wanted.high], rel=DIGITS)
    difference = interval([a - b for a, b in zip(values, base)])
    assert float(line["difference_mean"]) == pytest.approx(difference.mean, rel=DIGITS)
    assert float(line["difference_high"]) == pytest.approx(difference.high, rel=DIGITS)
    assert (line["verdict"], line["seeds"]) == ("lower", "3")
    assert lines["flat", "image"]["verdict"] == "higher"
    assert lines["base=16", "image"]["difference_mean"] == "0"
    assert lines["base=64", "image"]["seconds_to_equal_bits_reached"] == "3 of 3"
    assert lines["flat", "image"]["seconds_to_equal_bits_reached"] == "0 of 3"
    assert lines["flat", "image"]["seconds_to_equal_bits_mean"] == ""


@pytest.mark.parametrize(
    "points, target, wanted",
    [
        ([(10, 5.0), (20, 3.0), (40, 1.0)], 2.0, 30.0),
        ([(10, 5.0), (20, 3.0), (40, 1.0)], 3.0, 20.0),
        ([(10, 5.0), (20, 3.0), (40, 1.0)], 6.0, 10.0),
        ([(10, 5.0), (20, 3.0), (40, 1.0)], 0.5, None),
        ([(10, 5.0), (20, 5.5), (30, 4.5)], 5.0, 10.0),
        ([(10, 5.0), (20, 5.5), (30, 4.5)], 4.75, 27.5),
        ([(10, math.nan), (20, 1.0)], 2.0, 20.0),
        ([], 2.0, None),
    ],
)
def test_where_a_curve_comes_down_to_a_target(points: list, target: float, wanted: float | None) -> None:
    assert crossing(points, target) == (None if wanted is None else pytest.approx(wanted))


def test_equal_bits_are_those_of_the_baseline_of_the_same_seed(ended: pathlib.Path) -> None:
    rows = {row.arm: row for row in rows_of(read_results(ended), "image")}
    own = rows["base=16"]
    assert own.over("seconds_to_equal_bits").count == own.difference.count == 3
    assert own.over("seconds_to_equal_bits").mean == pytest.approx(made_up("base=16", 0)["curve"][-1]["seconds"])
    assert 0 < rows["base=64"].over("flops_to_equal_bits").mean < made_up("base=64", 0)["curve"][-1]["flops"]
    assert [line["flops_to_equal_bits"] for line in rows["flat"].lines] == [None] * 3
    assert page.reached(rows["flat"], "seconds") == "not reached"
    spent = [line | {"seconds_to_equal_bits": seconds} for line, seconds in zip(own.lines, [None, 90.0, None])]
    assert page.reached(Row("base=16", "image", spent), "seconds") == "90\N{NO-BREAK SPACE}s, 1 of 3 seeds"
    assert page.reached(Row("base=16", "image", []), "flops") == "–"


def test_missing_arms_are_shown_as_missing(tmp_path: pathlib.Path) -> None:
    write_sweep(tmp_path / "sweep", ("base=2", "base=16", "flat"), forms=["image"])
    for path in (tmp_path / "sweep" / "arms" / "flat").rglob("*"):
        if path.is_file():
            path.unlink()
    (tmp_path / "sweep" / "arms" / "base=2" / "seed1" / "result.json").unlink()
    (tmp_path / "sweep" / "arms" / "base=2" / "seed1").rmdir()
    out = tmp_path / "sweep"
    write_tables(out)
    page.write_report(out)
    text = read_page(out).text
    assert "5 of 9" in text
    assert "base=2 (seed 1); flat (seed 0, 1, 2)" in text
    assert text.count("no result") >= 2
    assert {line["verdict"] for line in lines_of(out / "table.csv") if line["arm"] == "flat"} == {"not comparable"}
    assert all(line["bits_mean"] == "" for line in lines_of(out / "table.csv") if line["arm"] == "flat")


@pytest.mark.parametrize("gone", ["baseline", "all"])
def test_a_sweep_without_its_baseline_or_without_any_result_has_a_page(tmp_path: pathlib.Path, gone: str) -> None:
    write_sweep(tmp_path, ("base=9", "base=16"), seeds=2, forms=["image"])
    for path in (tmp_path / "arms").rglob("result.json"):
        if gone == "all" or "base=16" in str(path):
            path.unlink()
    write_tables(tmp_path)
    page.write_report(tmp_path)
    text = read_page(tmp_path).text
    assert ("2 of 4" if gone == "baseline" else "0 of 4") in text
    assert "base=16 (seed 0, 1)" in text
    assert ("not comparable" in text) == (gone == "baseline")


def test_one_seed_has_no_interval(tmp_path: pathlib.Path) -> None:
    write_sweep(tmp_path, ("base=2", "base=16", "base=64"), seeds=1, forms=["image"])
    row = rows_of(read_results(tmp_path), "image")[0]
    assert told(row.bits) == f"{row.bits.mean:.3f}"
    page.write_report(tmp_path)
    text = read_page(tmp_path).text
    assert "one seed" in text
    assert "fewer bits" not in text
    assert "more bits" not in text


def test_overlapping_intervals_are_called_not_distinguishable(tmp_path: pathlib.Path) -> None:
    write_sweep(tmp_path, ("base=16", "base=17", "base=64"))
    for seed, shift in enumerate((-0.01, 0.02, -0.015)):
        result = made_up("base=16", seed) | {"arm": "base=17"}
        for entry in result["bits"].values():
            entry["renormalised"] += shift
        put(tmp_path, result)
    rows = rows_of(read_results(tmp_path), "image")
    assert [row.verdict for row in rows] == ["not distinguishable", "not distinguishable", "lower"]


@pytest.mark.parametrize("budget", ["items", "flops", "seconds"])
def test_other_data_and_other_devices_are_named(tmp_path: pathlib.Path, budget: str) -> None:
    write_sweep(tmp_path, ("base=2", "base=16"), budget=budget, forms=["image"])
    other = made_up("base=2", 1, ["image"])
    put(tmp_path, other | {"data": other["data"] | {"order": "c" * 64}, "device": "NVIDIA H200"})
    page.write_report(tmp_path)
    text = read_page(tmp_path).text
    assert "NOT COMPARABLE: arms differ in the documents of each step, seed 1." in text
    assert "Equal in all arms" not in text
    assert "2 CPU cores, NVIDIA H200" in text
    assert "aren't comparable" in text
    assert f"equally many {budget}" in text


def test_cost_stands_beside_what_was_predicted(ended: pathlib.Path) -> None:
    rows = {row.arm: row for row in rows_of(read_results(ended), "image")}
    assert rows["base=16"].over("measured_ratio").mean == rows["base=16"].over("predicted_ratio").mean == 1.0
    pairs = [[made_up(arm, seed) for arm in ("base=2", "base=16")] for seed in range(3)]
    speeds = [base["speed"]["items_per_second"] / own["speed"]["items_per_second"] for own, base in pairs]
    flops = [base["cost"]["training_flops_per_item"] / own["cost"]["training_flops_per_item"] for own, base in pairs]
    assert rows["base=2"].over("measured_ratio").mean == pytest.approx(np.mean(speeds))
    assert rows["base=2"].over("predicted_ratio").mean == pytest.approx(1 / np.mean(flops))
    assert rows["base=2"].over("predicted_ratio").mean > 1


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("sweep.json", None, "this file is needed"),
        ("sweep.json", "{", "can't be read"),
        ("sweep.json", '{"question": "?"}', "has no digest"),
        ("arms/base=2/seed0/result.json", "[]", "has no digest"),
        ("arms/base=2/seed0/result.json", "half", "can't be read"),
        ("anchors.csv", "a,b\n", "its first line must be"),
        (
            "anchors.csv",
            "name,modality,measure,value,standard_error,note\nx,image,metres,1,,\n",
            "it must be an anchor",
        ),
    ],
)
def test_damage_is_named(tmp_path: pathlib.Path, name: str, content: str | None, said: str) -> None:
    write_sweep(tmp_path, ("base=2", "base=16"), seeds=1)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=re.escape(said)):
        page.write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_names_at_the_ends_of_lines_dont_lie_on_each_other() -> None:
    many = [Line(f"arm {k}", np.array([1.0, 10.0]), np.array([3.0, 1.0 + 1e-4 * k])) for k in range(20)]
    for theme in (LIGHT, DARK):
        figure = figures.curves_figure(many, "arm 3", "bits per item", "seconds", theme)
        figure.savefig(io.BytesIO(), format="png")
        boxes = sorted((one.get_window_extent() for one in figure.axes[0].texts), key=lambda box: box.y0)
        assert len(boxes) == 20
        assert all(low.y1 <= high.y0 + 0.5 for low, high in zip(boxes, boxes[1:]))
        assert boxes[-1].y1 <= figure.bbox.y1
        assert boxes[0].y0 >= figure.bbox.y0
        assert all(box.x1 <= figure.bbox.x1 for box in boxes)
    assert spread([1.0, 1.0], 0.5) == [1.0, 1.5]


def test_what_lies_far_out_doesnt_leave_the_figure() -> None:
    axes = figures.rows_figure({"a": [1.0, 1.1], "b": []}, "a", {"outside": 5.0}, "bits", LIGHT).axes[0]
    low, high = axes.get_xlim()
    assert low < 1.0
    assert high > 5.0
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "outside"]


@pytest.mark.parametrize(
    "value, wanted",
    [(0.0, "0"), (999.4, "999"), (1000, "1 k"), (999_600, "1 M"), (2.34e12, "2.34 T"), (math.nan, "–")],
)
def test_quantities(value: float, wanted: str) -> None:
    assert quantity(value).replace("\N{NO-BREAK SPACE}", " ") == wanted


def test_a_share_is_told_in_percent_with_its_interval() -> None:
    space = "\N{NO-BREAK SPACE}"
    assert share(Interval(0.904, 0.793, 1.015, 3)) == f"90.4 ± 11.1{space}%"
    assert share(Interval(0.9, math.nan, math.nan, 1)) == f"90.0{space}%"
    assert share(interval([])) == "–"
