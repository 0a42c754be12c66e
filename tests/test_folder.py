"""A folder of files becomes a data set: its index, the readers in child processes, the stored records, the commands."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import tarfile
import time
from typing import Any

import av
import numpy as np
import PIL.Image
import pyarrow
import pytest
import soundfile
import test_files
from pyarrow import parquet

from omnijax.cli import main
from omnijax.data import reading
from omnijax.data.folder.index import Index, index_folder
from omnijax.data.prepare import prepare
from omnijax.data.reading import Failed, Reader
from omnijax.data.sources import folder as folder_source
from omnijax.errors import ConfigError, DataError
from omnijax.experiment import load_experiment

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


def test_every_hostile_file_gets_its_outcome(tmp_path: pathlib.Path) -> None:
    """The files of test_files.py, in one folder: what is read there is a record, what is refused a problem."""
    raw, refused = tmp_path / "raw", {}
    raw.mkdir()
    for ending, kinds in (
        (".png", test_files.SAME),
        (".wav", {name: make for name, (make, _) in test_files.HEARD.items()}),
    ):
        for number, make in enumerate(kinds.values()):
            (raw / f"good{number}{ending}").write_bytes(make())
    for ending, bad in ((".png", test_files.REFUSED), (".wav", test_files.REFUSED_SOUNDS)):
        for number, (make, rule) in enumerate(bad.values()):
            name = f"bad{number}{ending}"
            (raw / name).write_bytes(make())
            refused[name.removesuffix(ending), ending] = rule
    random = np.random.default_rng(0)
    for number in range(20):  # a codebook needs different sounds
        soundfile.write(raw / f"noise{number}.wav", 0.1 * random.normal(size=12000), 11025)
    good = {path.stem for path in raw.iterdir()} - {stem for stem, _ in refused}
    (raw / "folder.png").mkdir()
    (raw / "text.txt").write_bytes(b"\xff")
    (raw / "pipe.txt").symlink_to("nowhere")
    out = tmp_path / "data"
    assert main(["prepare", str(raw), "--out", str(out), "--skip-bad", "0.9"]) == 0
    problems = load_experiment(out / "experiment.py").data.problems()
    named = {problem["file"]: problem["reason"] for problem in problems}
    stored = [json.loads(path.read_text())["keys"] for path in (out / "signals").glob("*.json")]
    assert sorted(key for keys in stored for key in keys) == sorted(good & {key for keys in stored for key in keys})
    assert {stem for stem, _ in refused} | {"text", "pipe"} <= named.keys()


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
    with_text = [record for record in found if "caption" in record]
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
    small = "--model.depth 1 --model.unroll 1 --model.width 16 --model.heads 2 --model.kv_heads 1 --model.head_size 8"
    small += " --model.mlp_width 16 --train.steps 2 --batch.size 8"
    assert main(["train", "data/mine/experiment.py", "--workdir", "runs/mine", *small.split()]) == 0
    command = ["sample", "runs/mine", "--from", "caption=red 3", "--to", "picture", "--out", "house.png"]
    assert main(command) == 0
    with PIL.Image.open("house.png") as picture:
        assert picture.mode == "RGB"
