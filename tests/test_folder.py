"""A folder of files becomes a data set: its index, the readers in child processes, the stored records, the commands."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import html
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import time
from typing import Any

import av
import numpy as np
import PIL.Image
import pyarrow
import pytest
import soundfile
import tensorflow_datasets as tfds
import test_files
from pyarrow import parquet

from omnijax import new_experiment
from omnijax.cli import WRONG_INPUT, main
from omnijax.data import reading
from omnijax.data.manifest import read_manifest
from omnijax.data.pipeline import Batches
from omnijax.data.prepare import prepare
from omnijax.data.reading import Failed, Reader
from omnijax.data.sources.folder import source as folder_source
from omnijax.data.sources.folder.index import Index, index_folder
from omnijax.data.sources.folder.source import Folder, read_entry
from omnijax.data.store import StoredRows
from omnijax.errors import ConfigError, DataError
from omnijax.experiment import load_experiment
from omnijax.modalities import Text, clip_file
from omnijax.new_experiment import cost_here
from omnijax.testing import shrink
from omnijax.train import load_splits

NUMBER = 24


def make_files(folder: pathlib.Path, numbers: range = range(NUMBER)) -> pathlib.Path:
    """Pictures of stripes, tones and captions; those of one number have one stem."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        colour = np.zeros((12 + 4 * (number % 2), 12, 3), np.uint8)
        colour[..., number % 3], colour[number % 12] = 200, number
        PIL.Image.fromarray(colour).save(folder / f"n{number:02d}.png")
        (folder / f"n{number:02d}.txt").write_text(f"{['red', 'green', 'blue'][number % 3]} {number}\n")
        tone = 0.3 * np.sin(2 * np.pi * (300 + 40 * number) * np.arange(4800) / 16000)
        soundfile.write(folder / f"n{number:02d}.wav", tone, 16000)
    return folder


def keys(index: Index) -> list[str]:
    return [entry.key for entry in index.entries]


def reasons(index: Index) -> dict[str, str]:
    return {problem.file: problem.reason for problem in index.problems}


# ---------------------------------------------------------------------- the index


def test_files_with_one_stem_are_one_record(tmp_path: pathlib.Path) -> None:
    for name in ("a.png", "a.txt", "b.v2.JPG", "b.caption.txt", "sub/a.wav", "sub/.hidden", "Thumbs.db", "a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    index = index_folder(tmp_path)
    assert keys(index) == ["a", "b", "sub/a"]
    assert index.entries[1].files == {"caption": "b.caption.txt", "picture": "b.v2.JPG"}
    assert reasons(index) == {
        "Thumbs.db": "no modality reads files with this ending",
        "a.png": "a.jpg has the same stem and is of the same kind",
    }


def test_names_of_folders_are_labels(tmp_path: pathlib.Path) -> None:
    for name in ("cats/a.png", "cats/b.png", "dogs/a.png", "stray.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    index = index_folder(tmp_path)
    assert index.label == "label"
    assert {entry.key: entry.texts["label"] for entry in index.entries} == {
        "cats/a": "cats",
        "cats/b": "cats",
        "dogs/a": "dogs",
    }
    assert reasons(index) == {"stray.png": "it lies in no folder whose name is its label"}


def test_a_folder_of_files_alone_has_one_field(tmp_path: pathlib.Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    index = index_folder(tmp_path)
    assert list(index.kinds) == ["picture"]
    assert not index.label


TABLES = {
    "metadata.csv": "file_name,caption,voice_file_name\na.png,a red house,a.wav\nb.png,,\nlost.png,x,\n",
    "metadata.jsonl": '{"file_name": "a.png", "caption": "a red house", "voice_file_name": "a.wav"}\n'
    '{"file_name": "b.png", "caption": null}\n{"file_name": "lost.png"}\n',
}


@pytest.mark.parametrize("table", [*TABLES, "metadata.parquet"])
def test_a_table_names_files_and_has_texts(tmp_path: pathlib.Path, table: str) -> None:
    if table in TABLES:
        (tmp_path / table).write_text(TABLES[table])
    else:
        rows = [json.loads(line) for line in TABLES["metadata.jsonl"].splitlines()]
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / table)
    for name in ("a.png", "b.png", "a.wav", "more.png"):
        (tmp_path / name).touch()
    index = index_folder(tmp_path)
    assert keys(index) == ["a.png", "b.png"]
    assert index.entries[0].files == {"picture": "a.png", "voice": "a.wav"}
    assert index.entries[0].texts == {"caption": "a red house"}
    assert index.entries[1].texts == {}
    assert reasons(index) == {
        f"{table}:3": "lost.png: no such file, or of a kind that isn't that of 'picture'",
        "more.png": f"no row of {table} names it",
    }


TEXTS = [
    {"question": "two and two?", "answer": "four"},
    {"question": "two and three?", "answer": "five"},
    {"question": "two and two?", "answer": "four"},
    {"question": "", "answer": None},
    {"question": "and five?", "answer": ""},
]


@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_a_table_may_have_texts_alone(tmp_path: pathlib.Path, table: str) -> None:
    if table.endswith(".csv"):
        with (tmp_path / table).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["question", "answer"])
            writer.writeheader()
            writer.writerows(TEXTS)
    elif table.endswith(".jsonl"):
        (tmp_path / table).write_text("".join(json.dumps(row) + "\n" for row in TEXTS))
    else:
        parquet.write_table(pyarrow.Table.from_pylist(TEXTS), tmp_path / table)
    index = index_folder(tmp_path)
    assert [entry.files for entry in index.entries] == [{}] * 4
    said = sorted(tuple(entry.texts.values()) for entry in index.entries)
    assert said == [("and five?",), ("two and three?", "five"), ("two and two?", "four"), ("two and two?", "four")]
    assert len(set(keys(index))) == 4
    assert reasons(index) == {f"{table}:4": "it has no text"}
    (tmp_path / "a.png").touch()
    with pytest.raises(ConfigError, match=r"no column of metadata\.\w+ names files.*a\.png.*file_name"):
        index_folder(tmp_path)


def test_rows_of_texts_are_the_same_records_in_any_order_of_rows_and_columns(tmp_path: pathlib.Path) -> None:
    def indexed(rows: list[dict[str, str]]) -> dict[str, str]:
        (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {entry.key: entry.texts["t"] for entry in index_folder(tmp_path).entries}

    rows = [{"t": text, "split": split} for text in "aabc" for split in ("train", "validation")]
    first = indexed(rows)
    assert len(first) == 8
    assert indexed([dict(reversed(row.items())) for row in reversed(rows)]) == first
    assert indexed([row | {"split": "train"} for row in rows]) == first
    assert indexed(rows[1:]).items() < first.items()
    assert indexed([*rows, {"t": "c", "split": "train"}, {"t": "d", "split": "train"}]).items() > first.items()


def test_the_group_of_a_row_is_that_of_its_fields(tmp_path: pathlib.Path) -> None:
    rows = [{"text": "hello", "id": number, "label": f"kind {number}"} for number in (1, 2)]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entries, text = index_folder(tmp_path).entries, Text(most=20)
    labelled = Folder(folder=str(tmp_path), directory="x", fields={"text": text, "label": text}, label="label")
    for source in (dataclasses.replace(labelled, fields={"text": text}, label=""), labelled):
        assert len({read_entry(source, entry)[1] for entry in entries}) == 1
    grouped = dataclasses.replace(labelled, fields={"text": text, "id": text}, label="")
    assert len({read_entry(grouped, entry)[1] for entry in entries}) == 2


def test_a_bad_row_of_texts_is_named_by_its_place(tmp_path: pathlib.Path, capsys, unmeasured: None) -> None:
    raw, out = tmp_path / "raw", tmp_path / "data"
    raw.mkdir()
    texts = [f"text {number}" for number in range(30)]
    (raw / "metadata.csv").write_text("\n".join(["text", *texts]))
    assert main(["prepare", str(raw), "--out", str(out)]) == 0
    (raw / "metadata.csv").write_text("\n".join(["text", *texts, "much longer than every other text was"]))
    assert main(["prepare", str(raw), "--out", str(out)]) == WRONG_INPUT
    assert "metadata.csv:31: " in capsys.readouterr().err


def test_rows_of_a_table_that_names_files_need_one(tmp_path: pathlib.Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.png,a red house\n,a lost house\n")
    (tmp_path / "a.png").touch()
    index = index_folder(tmp_path)
    assert keys(index) == ["a.png"]
    assert reasons(index) == {"metadata.csv:2": "it names no file"}


def test_equal_rows_of_texts_are_in_one_split_and_none_is_read_twice(
    tmp_path: pathlib.Path, unmeasured: None, capsys
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "data"
    raw.mkdir()
    rows = [{"text": f"text {number % 40}"} for number in range(120)]
    (raw / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["prepare", str(raw), "--out", str(out)]) == 0

    def texts() -> dict[str, list[str]]:
        data = load_experiment(out / "experiment.py").data
        return {split: sorted(record["text"] for record in data.records(split)) for split in data.splits}

    before = texts()
    assert sorted(sum(before.values(), [])) == sorted(row["text"] for row in rows)
    assert all(found.count(text) == 3 for found in before.values() for text in found)
    rows += [{"text": "text 3"}, {"text": "text 77"}]
    (raw / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["prepare", str(raw), "--out", str(out)]) == 0
    after = texts()
    assert sorted(sum(after.values(), [])) == sorted(row["text"] for row in rows)
    (home,) = [split for split, found in before.items() if "text 3" in found]
    assert after[home].count("text 3") == 4


def write_table(raw: pathlib.Path, splits: list[str]) -> pathlib.Path:
    """Pictures with captions and the splits that a table gives them."""
    raw.mkdir()
    rows = []
    for number, split in enumerate(splits):
        PIL.Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(raw / f"{number}.png")
        row = {"file_name": f"{number}.png", "caption": f"number {number}", "split": split}
        rows.append(json.dumps({name: value for name, value in row.items() if value}) + "\n")
    (raw / "metadata.jsonl").write_text("".join(rows))
    return raw


OWN = ["train", "test/dark", "train", "validation", "train", "train"]


def test_a_table_says_the_splits(tmp_path: pathlib.Path, capsys, unmeasured: None) -> None:
    raw, out = write_table(tmp_path / "raw", OWN), tmp_path / "data"
    assert main(["prepare", str(raw), "--out", str(out)]) == 0
    assert "train: 4 records\nvalidation: 1 records\ntest/dark: 1 records\n" in capsys.readouterr().out
    data = load_experiment(out / "experiment.py").data
    assert data.splits == ("train", "validation", "test/dark")
    assert "split" not in data.fields
    for split in data.splits:
        said = [record["caption"] for record in data.records(split)]
        assert said == [f"number {number}" for number, own in enumerate(OWN) if own == split]


@pytest.mark.parametrize("splits", [["train", "test"], ["train", "validation", ""], ["a", "b"]])
def test_a_column_that_does_not_divide_all_records_is_a_text(tmp_path: pathlib.Path, splits: list[str]) -> None:
    index = index_folder(write_table(tmp_path / "raw", splits))
    assert index.splits == ()
    assert "split" in index.kinds


def test_a_record_of_another_split_is_an_error(tmp_path: pathlib.Path, unmeasured: None, capsys) -> None:
    raw, out = write_table(tmp_path / "raw", OWN), tmp_path / "data"
    knobs = ["--data.own-splits", "train", "validation"]
    assert main(["prepare", str(raw), "--out", str(out), *knobs]) == WRONG_INPUT
    told = capsys.readouterr().err
    assert "1.png: test/dark: each record has its split in the table's column 'split': train, validation" in told
    knobs = ["--data.own-splits", "validation"]
    assert main(["prepare", str(raw), "--out", str(tmp_path / "other"), *knobs]) == WRONG_INPUT
    assert "data.own_splits" in capsys.readouterr().err


OWN_CLASS = """
import dataclasses
from omnijax.config import BatchConfig, Config, Task
from omnijax.data.sources.folder import Folder
from omnijax.modalities import Picture, Text

@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(Folder):
    pass

def get_config():
    fields = {"picture": Picture(channels=3), "caption": Text(most=20)}
    data = Mine(folder=FOLDER, directory=FOLDER + ".data", fields=fields)
    return Config(data, BatchConfig((Task(("caption",), (1.0,)),)))
"""


PREPARE = """
from omnijax.data.prepare import prepare
prepare(get_config())
"""


def test_an_experiment_file_may_define_its_own_folder(tmp_path: pathlib.Path) -> None:
    raw = write_table(tmp_path / "raw", OWN)
    (tmp_path / "mine.py").write_text(OWN_CLASS.replace("FOLDER", repr(str(raw))))
    assert main(["prepare", str(tmp_path / "mine.py")]) == 0
    assert sum(len(load_experiment(tmp_path / "mine.py").data.records(split)) for split in ("train", "validation")) > 0


def test_a_script_without_a_guard_is_named(tmp_path: pathlib.Path) -> None:
    """A child process imports the script that started it, which must not start again then."""
    script = tmp_path / "script.py"
    script.write_text("from omnijax.data.reading import Reader\nprint(*Reader(abs, children=1).read([-1]))\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert f"PlatformError: script = '{script}'" in done.stderr
    raw = write_table(tmp_path / "raw", OWN)
    building = tmp_path / "building.py"
    building.write_text(OWN_CLASS.replace("FOLDER", repr(str(raw))) + PREPARE)
    done = subprocess.run([sys.executable, str(building)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert f"PlatformError: script = '{building}'" in done.stderr  # it doesn't wait for its parent for ever
    script.write_text(script.read_text().replace("print", "if __name__ == '__main__': print"))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "1\n"


MIXED: dict[str, tuple[dict[str, str], str]] = {
    "table and sidecars": ({"metadata.csv": "file_name\na.png\n", "a.png": "", "a.txt": ""}, "that have sidecars, too"),
    "two tables": ({"metadata.csv": "file_name\na.png\n", "metadata.jsonl": "", "a.png": ""}, "two tables"),
    "table below": ({"x/metadata.csv": "file_name\na.png\n", "a.png": ""}, "lies in the folder itself"),
    "labels and texts": ({"x/a.png": "", "y/b.txt": ""}, "names of folders can't be labels"),
    "rows of other lengths": ({"metadata.csv": "file_name\na.png,b\n", "a.png": ""}, "a value for each column"),
    "no JSON": ({"metadata.jsonl": "{\n", "a.png": ""}, "the table can't be read"),
}


@pytest.mark.parametrize("kind", MIXED)
def test_a_mixture_of_conventions_is_an_error(tmp_path: pathlib.Path, kind: str) -> None:
    files, rule = MIXED[kind]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=rule):
        index_folder(tmp_path)


def test_odd_folders_are_read_to_their_end(tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    (tmp_path / "in" / "circle").symlink_to(tmp_path)
    pathlib.Path(os.fsdecode(bytes(tmp_path / "in") + b"/\xff.png")).touch()
    index = index_folder(tmp_path)
    assert keys(index) == ["in/a"]
    assert "reached before, through a link" in reasons(index)["in/circle"]
    assert "its name isn't UTF-8" in reasons(index)["'in/\\udcff.png'"]
    with pytest.raises(DataError, match="no record was found"):
        index_folder(tmp_path / "in" / "empty") if False else index_folder(make_empty(tmp_path))


def make_empty(folder: pathlib.Path) -> pathlib.Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def write_film(path: pathlib.Path, seconds: int, sound: bool = True, rate: int = 12) -> None:
    """A film that becomes brighter, with a tone."""
    with av.open(str(path), "w") as film:
        video = film.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
        track = film.add_stream("aac", rate=16000) if sound else None
        for number in range(seconds * rate):
            values = np.full((24, 32, 3), 255 * number // (seconds * rate), np.uint8)
            film.mux(video.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
        film.mux(video.encode())
        if track is not None:
            tone = (9000 * np.sin(np.arange(16000 * seconds) / 7)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
            frame.sample_rate = 16000
            film.mux(track.encode(frame))
            film.mux(track.encode())


# ---------------------------------------------------------------------- child processes


def square(number: int) -> int:
    return number**2


def misbehave(kind: str) -> str:
    """What a decoder can do to the process that calls it."""
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "hang":
        time.sleep(60)
    elif kind == "memory":
        np.ones(2**31, np.uint8)
    elif kind == "error":
        raise DataError("picture", "file", "it can't be read", "give another file")
    elif kind == "value":
        raise ValueError("odd")
    return kind


def test_results_come_in_order() -> None:
    with Reader(square, 3) as reader:
        assert list(reader.read(range(100))) == [number**2 for number in range(100)]
        assert list(reader.read([])) == []


def test_a_file_cannot_kill_hang_or_exhaust_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SECONDS", 2.0)
    kinds = ["fine", "crash", "fine", "hang", "memory", "error", "value", "fine"]
    with Reader(misbehave, 2) as reader:
        found = list(reader.read(kinds))
    assert found == [
        "fine",
        Failed("the process that read it ended (SIGSEGV)"),
        "fine",
        Failed("it takes over 2 s"),
        Failed("it needs over 1 GiB of memory"),
        Failed("it can't be read"),
        Failed("ValueError: odd"),
        "fine",
    ]


# ---------------------------------------------------------------------- the data set


def prepared(folder: pathlib.Path, out: pathlib.Path) -> Any:
    assert main(["prepare", str(folder), "--out", str(out)]) == 0
    return load_experiment(out / "experiment.py").data


def content(directory: pathlib.Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_source, "SHARD", 5)


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of training takes seconds to measure."""
    monkeypatch.setattr(new_experiment, "cost_here", lambda config: "no time")


def test_the_cost_of_training_is_measured() -> None:
    config = shrink(load_experiment(pathlib.Path(__file__).parents[1] / "experiments" / "lookup.py"), pathlib.Path())
    assert re.fullmatch(r"about \d+ min and \d+\.\d GB on \d+ × cpu", cost_here(config))


def test_a_folder_becomes_records(tmp_path: pathlib.Path) -> None:
    data = prepared(make_files(tmp_path / "raw"), tmp_path / "data")
    found = {str(record["caption"]): record for split in data.splits for record in data.records(split)}
    assert sorted(found) == sorted(f"{['red', 'green', 'blue'][n % 3]} {n}" for n in range(NUMBER))
    record = found["green 4"]
    with (tmp_path / "raw" / "n04.png").open("rb") as stream:
        np.testing.assert_array_equal(record["picture"], data.fields["picture"].read(stream))
    before = content(tmp_path / "data")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    assert prepared(tmp_path / "raw", tmp_path / "data") == data
    assert content(tmp_path / "data") == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == times


def test_archives_are_read_like_folders(tmp_path: pathlib.Path, capsys) -> None:
    raw, shards = make_files(tmp_path / "raw"), tmp_path / "shards"
    shards.mkdir()
    files = sorted(raw.iterdir())
    for number, part in enumerate((files[: len(files) // 2], files[len(files) // 2 :])):
        with tarfile.open(shards / f"{number:03d}.tar", "w") as archive:
            for path in part:
                archive.add(path, path.name)
    plain, data = prepared(raw, tmp_path / "plain"), prepared(shards, tmp_path / "data")
    texts = [
        sorted(str(record["caption"]) for split in one.splits for record in one.records(split)) for one in (plain, data)
    ]
    assert texts[0] == texts[1]
    whole = (shards / "001.tar").read_bytes()
    (shards / "001.tar").write_bytes(whole[: len(whole) // 2])
    assert main(["prepare", str(shards), "--out", str(tmp_path / "cut")]) == 2
    assert "001.tar: the archive can't be read to its end" in capsys.readouterr().err


def test_an_archive_or_a_table_is_given_by_its_path(tmp_path: pathlib.Path, capsys) -> None:
    raw = make_files(tmp_path / "raw", range(12))
    (tmp_path / "other.tar").mkdir()
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        for path in sorted(raw.iterdir()):
            archive.add(path, path.name)
    rows = [{"file_name": f"n{k:02d}.png", "tone_file_name": f"n{k:02d}.wav", "caption": f"c{k}"} for k in range(12)]
    for path in raw.glob("*.txt"):
        path.unlink()
    (raw / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for given, captions in ((tmp_path / "one.tar", "red 0"), (raw / "metadata.jsonl", "c0")):
        source = prepared(given, tmp_path / f"of_{given.stem}")
        records = [record for split in source.splits for record in source.records(split)]
        assert len(records) == 12
        assert captions in {record["caption"].strip() for record in records}
        assert sum("caption" in record and len(record) == 3 for record in records) == 12
    for wrong in ("nothing", "other.tar", "one.zip"):
        assert main(["prepare", str(tmp_path / wrong), "--out", str(tmp_path / "no")]) == WRONG_INPUT
        assert "it must be a folder, an archive (.tar), or a table (metadata.csv" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "of_one")]) == WRONG_INPUT
    assert f"it is a folder. Fix: give its file: {tmp_path / 'of_one' / 'experiment.py'}" in capsys.readouterr().err


@pytest.mark.parametrize("after", [1, 7, 20, 24])
def test_a_build_that_was_killed_ends_with_the_same_bytes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    raw = make_files(tmp_path / "raw")
    config = None
    for name in ("whole", "part"):
        assert main(["prepare", str(raw), "--out", str(tmp_path / name)]) == 0
    whole = content(tmp_path / "whole")
    config = load_experiment(tmp_path / "part" / "experiment.py")
    kept = (tmp_path / "part" / "experiment.py").read_bytes()
    for path in sorted((tmp_path / "part").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    calls: list[float] = []

    def kill(share: float) -> None:
        calls.append(share)
        if len(calls) == after:
            raise KeyboardInterrupt

    build = type(config.data).build
    with monkeypatch.context() as patch:
        patch.setattr(type(config.data), "build", lambda self, directory, _, beam: build(self, directory, kill, beam))
        with pytest.raises(KeyboardInterrupt):
            prepare(config)
    (tmp_path / "part" / "experiment.py").write_bytes(kept)
    assert main(["prepare", str(raw), "--out", str(tmp_path / "part")]) == 0
    found = content(tmp_path / "part")
    assert found.keys() == whole.keys()
    different = [name for name in whole if whole[name] != found[name]]
    assert different in ([], ["experiment.py"])  # which names its directory


def test_files_that_are_added_move_no_record(tmp_path: pathlib.Path) -> None:
    raw = make_files(tmp_path / "raw", range(12))
    data = prepared(raw, tmp_path / "data")
    before = {split: [str(record["caption"]) for record in data.records(split)] for split in data.splits}
    stored = content(tmp_path / "data" / "signals")
    learned = content(tmp_path / "data" / "fitted")
    make_files(raw, range(12, NUMBER))
    data = prepared(raw, tmp_path / "data")
    after = {split: [str(record["caption"]) for record in data.records(split)] for split in data.splits}
    assert all(after[split][: len(before[split])] == before[split] for split in before)
    assert sum(map(len, after.values())) == NUMBER
    assert stored.items() <= content(tmp_path / "data" / "signals").items()
    assert content(tmp_path / "data" / "fitted") == learned
    items = read_manifest(tmp_path / "data")["items"][""]
    assert {split: said["records"] for split, said in items.items()} == {
        name: len(rows) for name, rows in after.items()
    }


def test_bad_files_stop_the_command_unless_they_are_allowed(tmp_path: pathlib.Path, capsys) -> None:
    raw, out = make_files(tmp_path / "raw"), tmp_path / "data"
    whole = (raw / "n03.png").read_bytes()
    (raw / "n03.png").write_bytes(whole[: len(whole) // 2])
    (raw / "n05.wav").write_bytes(b"")
    assert main(["prepare", str(raw), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "n05.wav: it can't be read" in said
    assert not out.exists() or not (out / "manifest.json").exists()
    assert main(["prepare", str(raw), "--out", str(out), "--skip-bad", "0.1"]) == 0
    data = load_experiment(out / "experiment.py").data
    assert sum(len(data.records(split)) for split in data.splits) == NUMBER - 2
    table = next((out / "state").glob("*/problems.jsonl")).read_text().splitlines()
    assert {json.loads(line)["file"] for line in table} == {"n03", "n05"}


def test_what_was_mended_or_removed_is_no_problem_any_more(tmp_path: pathlib.Path, capsys) -> None:
    """Its header is right, so that it fails when it is read; the command is given again after each change."""
    raw, out = make_files(tmp_path / "raw", range(12)), tmp_path / "data"
    good = {name: (raw / name).read_bytes() for name in ("n03.wav", "n05.wav")}
    for name in good:
        soundfile.write(raw / name, np.zeros(4800), 16000)
    command = ["prepare", str(raw), "--out", str(out)]
    assert main(command) == WRONG_INPUT
    said = capsys.readouterr().err
    advised = re.search(r"2 of 12 records can't be used.*n03.*n05.*--skip-bad ([0-9.]+)\.", said, re.DOTALL)
    assert advised
    assert main([*command, "--skip-bad", advised[1]]) == 0
    (raw / "n03.wav").write_bytes(good["n03.wav"])
    for path in raw.glob("n05.*"):
        path.unlink()
    assert main(command) == 0
    source = load_experiment(out / "experiment.py").data
    assert sum(len(source.records(split)) for split in source.splits) == 11
    assert list(source.problems()) == []
    before = content(out)
    assert main(command) == 0
    assert content(out) == before


def test_a_text_that_was_added_and_is_too_long_is_named(tmp_path: pathlib.Path, capsys) -> None:
    raw, out = make_files(tmp_path / "raw", range(12)), tmp_path / "data"
    prepared(raw, out)
    make_files(raw, range(12, 14))
    (raw / "n12.txt").write_text("a long text " * 20)
    assert main(["prepare", str(raw), "--out", str(out)]) == WRONG_INPUT
    assert "n12: 240 items: the data set was made for" in capsys.readouterr().err
    assert main(["prepare", str(raw), "--out", str(out), "--skip-bad", "0.1"]) == 0
    Batches(load_splits(load_experiment(out / "experiment.py")), load_experiment(out / "experiment.py").batch).check(1)


@pytest.mark.parametrize("share", ["-1", "1.5", "nan"])
def test_a_share_that_is_none_is_refused(tmp_path: pathlib.Path, capsys, share: str) -> None:
    raw = make_files(tmp_path / "raw", range(3))
    assert main(["prepare", str(raw), "--out", str(tmp_path / "data"), f"--skip-bad={share}"]) == WRONG_INPUT
    assert "it is a share, in 0 … 1" in capsys.readouterr().err


def test_an_experiment_file_is_never_deleted(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where a build was killed, and goes on with other knobs."""
    raw, out = make_files(tmp_path / "raw"), tmp_path / "data"
    finish = folder_source.Folder._finish

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_source.Folder, "_finish", killed)
    main(["prepare", str(raw), "--out", str(out)])
    assert (out / "unfinished.json").exists()
    text = (out / "experiment.py").read_text()
    monkeypatch.setattr(folder_source.Folder, "_finish", finish)
    assert main(["prepare", str(raw), "--out", str(out), "--data.shares.test", "0.3"]) == 0
    assert (out / "experiment.py").read_text() == text


def test_every_hostile_file_gets_its_outcome(tmp_path: pathlib.Path) -> None:
    """The files of test_files.py, in one folder: what is read there is a record, what is refused a problem."""
    raw, refused = tmp_path / "raw", {}
    raw.mkdir()
    for ending, kinds in (
        (".png", test_files.SAME),
        (".wav", {name: make for name, (make, _) in test_files.HEARD.items()}),
    ):
        for number, make in enumerate(kinds.values()):
            (raw / f"good_{ending[1:]}{number}{ending}").write_bytes(make())
    for ending, bad in ((".png", test_files.REFUSED), (".wav", test_files.REFUSED_SOUNDS)):
        for number, (make, rule) in enumerate(bad.values()):
            name = f"bad_{ending[1:]}{number}"
            (raw / f"{name}{ending}").write_bytes(make())
            if rule != test_files.REFUSED_SOUNDS["four seconds"][1]:  # the modality of the folder is long enough
                refused[name] = rule.removesuffix(" 0.0464 to")
    random = np.random.default_rng(0)
    for number in range(20):  # a codebook needs different sounds
        soundfile.write(raw / f"noise{number}.wav", 0.1 * random.normal(size=12000), 11025)
    good = {path.stem for path in raw.iterdir()} - refused.keys()
    (raw / "folder.png").mkdir()
    (raw / "text.txt").write_bytes(b"\xff")
    (raw / "pipe.txt").symlink_to("nowhere")
    out = tmp_path / "data"
    assert main(["prepare", str(raw), "--out", str(out), "--skip-bad", "0.9"]) == 0
    problems = load_experiment(out / "experiment.py").data.problems()
    named = {problem["file"]: problem["reason"] for problem in problems}
    stored = [json.loads(path.read_text())["keys"] for path in (out / "signals").glob("*.json")]
    read = {key for keys in stored for key in keys}
    assert good - read == set()
    assert {stem: refused[stem] for stem in read - good} == {}
    by_stem = {pathlib.PurePath(file).stem: reason for file, reason in named.items()}
    assert {*refused, "text", "pipe"} <= by_stem.keys()
    other = {stem: by_stem[stem] for stem, rule in refused.items() if not re.search(rule, by_stem[stem])}
    assert not other
    assert main(["show", str(out)]) == 0
    page = html.unescape((out / "data.html").read_text())
    assert [text for pair in named.items() for text in pair if text not in page] == []


def test_films_are_cut_into_windows_with_their_sound(tmp_path: pathlib.Path, capsys) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_film(raw / "a.mp4", 10)
    (raw / "a.txt").write_text("it becomes bright")
    write_film(raw / "b.mp4", 6, sound=False)
    data = prepared(raw, tmp_path / "data")
    said = capsys.readouterr().out
    assert "films and sounds are cut into windows of 4 seconds" in said
    assert "1 films have no sound" in said
    found = [record for split in data.splits for record in data.records(split)]
    with_text = sorted((record for record in found if "caption" in record), key=lambda one: one["clip"][0].mean())
    assert [len(record["clip"]) for record in with_text] == [16, 16, 8]
    assert len(found) - len(with_text) == 2
    for number, record in enumerate(with_text):
        seconds = 4 * number + np.arange(len(record["clip"])) / 4
        middle = record["clip"][:, 10, 10].mean(axis=-1)
        np.testing.assert_allclose(middle, 25.5 * seconds, atol=6)
        samples = data.fields["sound"].sample_rate_hz * len(record["clip"]) / 4
        assert len(record["sound"]) == pytest.approx(samples, rel=0.05)
    assert not any("sound" in record for record in found if "caption" not in record)


def test_three_commands(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path / "raw")
    assert main(["prepare", "raw", "--out", "data/mine"]) == 0
    said = capsys.readouterr().out
    assert "omnijax train data/mine/experiment.py --workdir runs/mine" in said
    assert "Takes      no time" in pathlib.Path("data/mine/experiment.py").read_text()
    small = "--model.depth 1 --model.unroll 1 --model.width 16 --model.heads 2 --model.kv_heads 1 --model.head_size 8"
    small += " --model.mlp_width 16 --train.steps 2 --batch.size 8"
    assert main(["train", "data/mine/experiment.py", "--workdir", "runs/mine", *small.split()]) == 0
    command = ["sample", "runs/mine", "--from", "caption=red 3", "--to", "picture", "--out", "house.png"]
    assert main(command) == 0
    with PIL.Image.open("house.png") as picture:
        assert picture.mode == "RGB"


def test_films_are_turned_as_they_are_shown(tmp_path: pathlib.Path) -> None:
    """A bright upper half, and a matrix that says how to turn it, as phones write it."""
    values = np.zeros((24, 32, 3), np.uint8)
    values[:12] = 200
    for degrees in (0, 90, 180, -90):
        path = tmp_path / f"turned{degrees}.mp4"
        with av.open(str(path), "w") as film:
            video = film.add_stream("libx264", rate=4)
            video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
            video.set_display_rotation(degrees)
            for _ in range(4):
                film.mux(video.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
            film.mux(video.encode())
        with av.open(str(path)) as film:
            said = next(film.decode(video=0)).rotation
        assert abs(said) == abs(degrees)
        with path.open("rb") as stream:
            header = clip_file.probe_film("film", stream)
            size = (header["width"], header["height"])
            (frame,) = clip_file.read_frames("film", stream, 4.0, size, 0.0, 1)
        expected = np.rot90(values, {0: 0, 90: 1, 180: 2, -90: 3, -180: 2}[said])
        assert size == expected.shape[1::-1]
        assert np.abs(frame.astype(int) - expected).mean() < 20


def test_one_film_is_split_by_its_windows_and_stays_so(tmp_path: pathlib.Path) -> None:
    (tmp_path / "raw").mkdir()
    write_film(tmp_path / "raw" / "film.mp4", 28)
    source = prepared(tmp_path / "raw", tmp_path / "data")
    counts = {split: len(source.records(split)) for split in source.splits}
    assert min(counts.values()) > 0
    assert sum(counts.values()) == 7
    before = {split: list(map(str, source.records(split))) for split in source.splits}
    for number in range(12):
        write_film(tmp_path / "raw" / f"more{number}.mp4", 5 + number)
    source = prepared(tmp_path / "raw", tmp_path / "data")
    for split, records in before.items():
        assert list(map(str, source.records(split)))[: len(records)] == records
    config = load_experiment(tmp_path / "data" / "experiment.py")
    Batches(load_splits(config), config.batch).check(2)


def test_a_build_that_is_killed_at_random_ends_with_the_same_bytes(tmp_path: pathlib.Path) -> None:
    """SIGKILL comes at a random time, in any of the passes."""
    folder = make_files(tmp_path / "raw", range(40))
    random = np.random.default_rng(0)
    command = [sys.executable, "-c", KILLED.format(folder=str(folder), out="{}")]

    def run(out: pathlib.Path, seconds: float | None) -> int:
        line = [*command[:2], command[2].format(str(out))]
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(seconds)
            process.kill()
        return -9

    began = time.monotonic()
    assert run(tmp_path / "whole", None) == 0
    most, kills = time.monotonic() - began, 0
    while run(tmp_path / "data", random.uniform(0.3, 0.9) * (1 + 0.3 * kills) * most) != 0:
        kills += 1
        assert kills < 9
    assert kills
    assert run(tmp_path / "data", None) == 0
    ours, theirs = content(tmp_path / "data"), content(tmp_path / "whole")
    assert {name for name in ours if ours[name] != theirs.get(name)} == {"experiment.py"}  # it names the directory
    assert ours.keys() == theirs.keys()


KILLED = """
from omnijax import new_experiment
from omnijax.cli import main
new_experiment.cost_here = lambda config: "no time"
raise SystemExit(main(["prepare", {folder!r}, "--out", "{out}"]))
"""


# ---------------------------------------------------------------------- several folders, and catalogues


def test_two_folders_become_a_mixture(tmp_path: pathlib.Path, capsys) -> None:
    """They share captions; only one has sounds. The same command again is a no-op, and files are added to one."""
    pictures, sounds = make_files(tmp_path / "pictures"), make_files(tmp_path / "the sounds", range(24, 40))
    for path in (*pictures.glob("*.wav"), *sounds.glob("*.png")):
        path.unlink()
    command = ["prepare", str(pictures), "--and", str(sounds), "--out", str(tmp_path / "data")]
    assert main(command) == 0
    config = load_experiment(tmp_path / "data" / "experiment.py")
    assert {name: list(part.fields) for name, part in config.data.parts.items()} == {
        "pictures": ["picture", "caption"],
        "the_sounds": ["sound", "caption"],
    }
    assert {task.fields for task in config.batch.tasks} == {
        ("picture", "caption"),
        ("caption", "picture"),
        ("sound", "caption"),
        ("caption", "sound"),
    }
    assert len(config.data.parts) == len(load_splits(config)) == 2
    before = content(tmp_path / "data")
    assert main(command) == 0
    assert content(tmp_path / "data") == before
    make_files(sounds, range(40, 60))
    for path in sounds.glob("*.png"):
        path.unlink()
    assert main(command) == 0
    after = content(tmp_path / "data")
    stored = {name for name in before if name.endswith(".array_record")}
    assert {name: after[name] for name in stored} == {name: before[name] for name in stored}
    assert len(load_splits(config)[1]) > len(load_splits(config)[0]) - 20
    assert main(["prepare", str(pictures), "--out", str(tmp_path / "data")]) == WRONG_INPUT
    assert "this data set is made of pictures, the_sounds" in capsys.readouterr().err


def test_a_field_of_two_kinds_is_refused(tmp_path: pathlib.Path, capsys) -> None:
    for name, kind in (("one", "png"), ("two", "wav")):
        folder = make_files(tmp_path / name, range(2))
        for path in folder.iterdir():
            if path.suffix != f".{kind}":
                path.unlink()
        (folder / "metadata.csv").write_text(f"thing_file_name\nn00.{kind}\nn01.{kind}\n")
    command = ["prepare", str(tmp_path / "one"), "--and", str(tmp_path / "two"), "--out", str(tmp_path / "data")]
    assert main(command) == WRONG_INPUT
    assert "the field 'thing'" in capsys.readouterr().err


def test_a_tfds_data_set_becomes_records(tmp_path: pathlib.Path, capsys) -> None:
    with tfds.testing.mock_data(num_examples=30):
        assert main(["prepare", "tfds:mnist", "--out", str(tmp_path / "data")]) == 0
        config = load_experiment(tmp_path / "data" / "experiment.py")
        rows = [row for split in config.data.splits for row in config.data.records(split)]
        assert len(rows) == 30
        made = {image["image"].tobytes(): image["label"] for image in tfds.data_source("mnist", split="train")}
        assert {row["image"].tobytes(): int(row["label"]) for row in rows} == {key: int(n) for key, n in made.items()}
        assert config.data.label == "label"
        assert set(config.data.classes) == {str(int(label)) for label in made.values()}
        assert main(["prepare", "tfds:mnist", "--out", str(tmp_path / "data")]) == 0
    assert isinstance(load_splits(config)[0].rows, StoredRows)
    for name, told in (("tfds:no_such_thing", "TFDS can't give it"), ("tfds:mnist[", "is tfds:NAME")):
        assert main(["prepare", name, "--out", str(tmp_path / "other")]) == WRONG_INPUT
        assert told in capsys.readouterr().err
