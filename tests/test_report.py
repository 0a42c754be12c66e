"""The report: one page that needs nothing else, and every number on it."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import pathlib
import re
import shutil
import wave

import numpy as np
import PIL.Image
import pytest

from omnijax.errors import DataError
from omnijax.report import figures, write_report
from omnijax.report.theme import LIGHT

RATE_HZ = 11025
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ACCURACY = {
    "image->text": 0.971,
    "speech->text": 0.922,
    "text->image": 0.943,
    "text->speech": 0.954,
    "image->speech": 0.885,
    "speech->image": 0.866,
}
COMPLETED = {"left": 0.789, "top": 0.777}
RUN_NAME = "a <b> & c"


def signals(kind: str, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    if kind == "text":
        return np.array([WORDS[label] for label in labels]), None
    if kind == "image":
        return rng.integers(0, 17, (len(labels), 8, 8), dtype=np.uint8), None
    lengths = rng.integers(2000, 4000, len(labels))
    times = np.arange(4000) / RATE_HZ
    waves = 0.5 * np.sin(2 * np.pi * (300 + 200 * labels[:, None]) * times) * (np.arange(4000) < lengths[:, None])
    return waves.astype(np.float32), lengths


def write_samples(path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(12) % 10
    arrays = {"sample_rate_hz": np.array(RATE_HZ)}
    for name in ACCURACY:
        judged = labels.copy()
        judged[1:3] = 0, -1
        arrays |= {f"{name}/label": labels, f"{name}/judged": judged}
        for kind, key, length_key in zip(name.split("->"), ("source", "signal"), ("source_length", "length")):
            arrays[f"{name}/{key}"], lengths = signals(kind, labels, rng)
            if lengths is not None:
                arrays[f"{name}/{length_key}"] = lengths
    # A word of no sound at all is something that a model can generate.
    arrays["text->speech/length"][0] = 0
    for kind in ("image", "speech", "speech_codec"):
        arrays[f"real/{kind}"], lengths = signals(kind.split("_")[0], labels, rng)
        arrays[f"real/{kind}_label"] = labels
        if lengths is not None:
            arrays[f"real/{kind}_length"] = lengths
    del arrays["real/speech_codec_label"]
    for half in COMPLETED:
        given = np.zeros((8, 8), bool)
        given[(slice(None), slice(4)) if half == "left" else slice(4)] = True
        arrays |= {f"completed/{half}/label": labels, f"completed/{half}/judged": judged}
        arrays[f"completed/{half}/given"] = given
        for part in ("real", "picture"):
            arrays[f"completed/{half}/{part}"] = signals("image", labels, rng)[0]
    np.savez(path, **arrays)


def evaluation() -> dict[str, object]:
    split = {
        "uniform": 16.35,
        "raw": 9.81,
        "renormalised": 9.62,
        "leak": 0.19,
        "digits": 9.76,
        "position": 0.05,
        "by_place": [4.1, 5.66],
        "errors": {"position": 0.0123, "digit_1": 0.5432, "digit_0": 0.25},
    }
    text = {
        "uniform": 8.0,
        "raw": 0.31,
        "renormalised": 0.3,
        "leak": 0.01,
        "digits": 0.0,
        "position": 0.0,
        "by_place": [],
        "errors": {"general": 0.067},
    }
    return {
        "step": 60,
        "examples": 360,
        "directions": ACCURACY,
        "standard_errors": dict.fromkeys(ACCURACY, 0.0123),
        "routes": {name: name for name in ACCURACY} | {"image->speech": "image->text->speech"},
        "confusion": {name: np.eye(10, 11, dtype=int).tolist() for name in ACCURACY},
        "judges": {"image": 0.967, "speech": 0.948, "speech_codec": 0.917},
        "bits_per_item": {"image": split, "speech": split, "text": text},
        "bits_per_pixel": 2.45,
        "decodable": 1.0,
        "decodable_without_grammar": 0.981,
        "decodable_by_direction": dict.fromkeys(ACCURACY, {"grammar": 1.0, "free": 0.976}),
        "completions": {
            half: {
                "accuracy": accuracy,
                "standard_error": 0.0234,
                "blank_accuracy": 0.314,
                "half_accuracy": 0.911,
                "half_standard_error": 0.0152,
                "blank_standard_error": 0.0241,
                "examples": 1360,
                "decodable": 0.999,
            }
            for half, accuracy in COMPLETED.items()
        },
        "shuffled_control": 0.104,
        "shuffled_control_by_direction": dict.fromkeys(ACCURACY, 0.112),
        "chance": 0.1,
        "sampling": {"text": {"temperature": 0.0}, "image": {"temperature": 0.9}},
        "seconds": 61.0,
        "device": "cpu",
    }


def write_run(directory: pathlib.Path, kinds: tuple[str, ...]) -> pathlib.Path:
    """A run directory with the files of training and evaluation, its losses split into `kinds`."""
    directory.mkdir()
    split = {f"loss/{kind}": 1.0 for kind in kinds}
    measured = {"seconds": 9.0, "tokens_per_second": 5e4, "loss": 2.0} | split
    lines = [json.dumps({"step": step} | measured) for step in (20, 40, 60, 60)]
    (directory / "metrics.jsonl").write_text("\n".join(lines))
    (directory / "config.json").write_text(json.dumps({"model": {"depth": 4}, "note": "</pre><script>"}))
    run = {"command": ["omnijax", "train", "a <b>.py"], "versions": {"jax": "0.10.2"}, "device": "cpu"}
    (directory / "run.json").write_text(json.dumps(run))
    (directory / "eval.json").write_text(json.dumps(evaluation()))
    write_samples(directory / "samples.npz")
    return directory


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    kinds = ("general", "position", "aos", "control", "digit_0", "digit_1")
    return write_report(write_run(tmp_path_factory.mktemp("runs") / RUN_NAME, kinds))


class Outline(html.parser.HTMLParser):
    """Follows open tags; keeps all addresses, identifiers, text and table rows."""

    VOID = frozenset({"meta", "img", "br", "source"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.anchors: list[str] = []
        self.rows: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data", "poster")]
        self.anchors += [value or "" for key, value in attrs if key == "id"]
        if tag == "tr":
            self.rows.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "path"

    def handle_data(self, data: str) -> None:
        if "tr" in self.open:
            self.rows[-1] += data


def test_page_is_well_formed_and_needs_nothing_else(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    outline = Outline(text)
    assert outline.open == []
    assert outline.addresses
    assert all(address.startswith("data:") for address in outline.addresses)
    assert not re.search(r"https?://|file:|@import|url\(", text)
    assert len(outline.anchors) == len(set(outline.anchors)) == 11


def test_pictures_are_valid_on_the_page_and_on_disk(page: pathlib.Path) -> None:
    embedded = [a for a in Outline(page.read_text(encoding="utf-8")).addresses if a.startswith("data:image/png")]
    on_disk = sorted((page.parent / "figures").glob("*.png"))
    names = {path.stem for path in on_disk}
    expected = {"samples", "completions", "loss_kinds", "loss_digits", "bits"}
    expected |= {f"confusion_{name.replace('->', '_to_')}" for name in ACCURACY}
    assert expected <= names
    assert {f"{name}_dark" for name in expected} <= names
    assert len([name for name in names if name.startswith("spectrogram")]) == 2 * 4 * 3
    contents = [base64.b64decode(address.partition(",")[2]) for address in embedded]
    for content in [*contents, *(path.read_bytes() for path in on_disk)]:
        with PIL.Image.open(io.BytesIO(content)) as image:
            assert image.format == "PNG"
            image.load()
    assert {path.read_bytes() for path in on_disk} <= set(contents)


def test_table_has_every_direction_with_its_numbers(page: pathlib.Path) -> None:
    rows = Outline(page.read_text(encoding="utf-8")).rows
    for name, accuracy in ACCURACY.items():
        (row,) = [row for row in rows if row.startswith(name.replace("->", " → ")) and "±" in row]
        assert f"{100 * accuracy:.1f}\N{NO-BREAK SPACE}%" in row
        assert "± 1.2" in row
        assert "11.2" in row
        assert ("by way of text: image → text → speech" in row) == (name == "image->speech")
    assert any("91.7" in row for row in rows)


def test_errors_stand_by_digit_place_and_kinds_that_are_not_there_are_left_out(page: pathlib.Path) -> None:
    rows = Outline(page.read_text(encoding="utf-8")).rows
    (head,) = [row for row in rows if row.startswith("wrong")]
    assert head == "wrongdigit 0digit 1positionbyte of text"
    assert "image25\N{NO-BREAK SPACE}%54.3\N{NO-BREAK SPACE}%1.2\N{NO-BREAK SPACE}%" in rows
    assert "text6.7\N{NO-BREAK SPACE}%" in rows


def test_completions_stand_beside_what_is_left_blank(page: pathlib.Path) -> None:
    rows = Outline(page.read_text(encoding="utf-8")).rows
    for half, accuracy in COMPLETED.items():
        (row,) = [row for row in rows if row.startswith(f"from the {half} half")]
        for number in (f"{100 * accuracy:.1f}", "± 2.3", "31.4", "± 2.4", "91.1", "± 1.5", "1,360", "99.9"):
            assert number in row


def test_a_figure_of_completions_shows_what_was_known_what_was_made_and_what_is_real() -> None:
    labels = np.array([2, 0, 2, 2])
    real, made = (np.full((4, 8, 8), value, np.uint8) for value in (16, 8))
    made[0] = 4
    given = np.zeros((8, 8), bool)
    given[:, :4] = True
    block = figures.Completions(real, made, given, labels, judged=np.array([2, 0, -1, 1]))
    figure = figures.completion_grid({"from the left half": block}, 3, 16, 2, LIGHT)
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "from the left half"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1", "2"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["given", "completed", "real"] * 2
    shown = axes.images[0].get_array()
    tops = [1, 10, 19, 31, 40, 49]
    for column, pictures in ((0, [8]), (1, []), (2, [4, 8])):
        tiles = [shown[top : top + 8, 9 * column + 1 : 9 * column + 9] for top in tops]
        for line, value in enumerate(pictures):
            np.testing.assert_array_equal(tiles[3 * line].mask, ~given)
            assert (tiles[3 * line].compressed() == 16).all()
            assert (tiles[3 * line + 1] == value).all()
            assert (tiles[3 * line + 2] == 16).all()
        for tile in tiles[3 * len(pictures) :]:
            assert (tile.filled(-1) == 0).all()
    (frame,) = axes.patches  # of the second 2; the third isn't shown
    assert (frame.get_x(), frame.get_y()) == pytest.approx((18.1, 39.1))


def test_players_hold_the_waveforms(page: pathlib.Path) -> None:
    players = [a for a in Outline(page.read_text(encoding="utf-8")).addresses if a.startswith("data:audio/wav")]
    # Five lines in each of four directions with speech, less the silent word; three words from four origins.
    assert len(players) == 5 * 4 - 1 + 3 * 4 - 1
    for address in players:
        with wave.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE_HZ, 1, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert 2000 <= len(samples) < 4000
        assert np.abs(samples).max() == pytest.approx(0.5 * 32767, rel=0.05)


def test_text_of_the_run_is_escaped(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "a &lt;b&gt; &amp; c" in text
    assert RUN_NAME not in text
    assert "a &lt;b&gt;.py" in text
    assert "a <b>.py" not in text
    assert text.count("<script>") == 1


@pytest.mark.parametrize("kinds", [(), ("digit_0", "digit_1")])
def test_absent_kinds_of_loss_and_no_completions(tmp_path: pathlib.Path, kinds: tuple[str, ...]) -> None:
    run = write_run(tmp_path / "run", kinds)
    with np.load(run / "samples.npz") as archive:
        rate = archive["sample_rate_hz"]
    np.savez(run / "samples.npz", sample_rate_hz=rate)
    (run / "eval.json").write_text(json.dumps(evaluation() | {"confusion": {}, "completions": {}}))
    assert 'id="completions"' not in write_report(run).read_text(encoding="utf-8")
    assert not (run / "figures/completions.png").exists()
    assert (run / "figures/loss_kinds.png").is_file()
    assert (run / "figures/loss_digits.png").is_file() == ("digit_0" in kinds)


@pytest.mark.parametrize("name", ["run.json", "config.json", "metrics.jsonl", "eval.json", "samples.npz"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_missing_or_damaged_file_is_named(page: pathlib.Path, tmp_path: pathlib.Path, name: str, damage: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(page.parent, run, ignore=shutil.ignore_patterns("figures", "report.html"))
    content = (run / name).read_bytes()
    (run / name).unlink()
    if damage == "truncated":
        (run / name).write_bytes(content[: len(content) // 2 - 9])
    with pytest.raises(DataError, match=f"{re.escape(name)}.*Fix: run `omnijax"):
        write_report(run)
    assert not (run / "report.html").exists()
    assert not (run / "figures").exists()


def test_missing_measure_is_named(page: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(page.parent, run)
    (run / "eval.json").write_text(json.dumps({k: v for k, v in evaluation().items() if k != "confusion"}))
    with pytest.raises(DataError, match="eval.json:confusion"):
        write_report(run)
