"""Two hundred records of real pictures, captions and spoken words: three commands, kills, and every convention."""

from __future__ import annotations

import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from typing import Any

import numpy as np
import PIL.Image
import pytest
import skimage.data
import soundfile
from jobs import MAIN

from omnijax.cli import main
from omnijax.data.sources.spoken_digits.espeak import Synthesizer
from omnijax.experiment import load_experiment

pytestmark = pytest.mark.proof
COUNT = 200
NAMES = ("astronaut", "coffee", "chelsea", "rocket")


def make(folder: pathlib.Path, numbers: range = range(COUNT), sounds: bool = True) -> pathlib.Path:
    """Pieces of four photographs, the name of each, and the name spoken."""
    folder.mkdir(parents=True, exist_ok=True)
    speaker, rng = Synthesizer(), np.random.default_rng(0)
    for number in range(max(numbers) + 1):
        name = NAMES[number % 4]
        picture = getattr(skimage.data, name)()
        top, left = (int(rng.integers(0, edge - 96)) for edge in picture.shape[:2])
        if number not in numbers:
            continue
        PIL.Image.fromarray(picture[top : top + 96, left : left + 96]).save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text(f"a piece of {name}")
        if sounds:
            wave = speaker.speak(name, speaker.variants[number % 5], 160, 40 + number % 20)
            soundfile.write(folder / f"{number:03d}.wav", wave, speaker.sample_rate_hz)
    return folder


def content(directory: pathlib.Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != "experiment.py")
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def records_of(out: pathlib.Path) -> dict[str, list[Any]]:
    source = load_experiment(out / "experiment.py").data
    return {split: list(source.records(split)) for split in source.splits}


def prepare(raw: pathlib.Path, out: pathlib.Path) -> None:
    assert main(["prepare", str(raw), "--out", str(out)]) == 0


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return make(tmp_path_factory.mktemp("own") / "raw")


@pytest.fixture(scope="module")
def whole(raw: pathlib.Path) -> pathlib.Path:
    out = raw.parent / "whole"
    prepare(raw, out)
    return out


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_in_every_pass_it_ends_with_the_same_bytes(
    raw: pathlib.Path, whole: pathlib.Path, tmp_path: pathlib.Path, seed: int
) -> None:
    """Killed when a file that nobody has seen before appears, after a random wait; again until nothing is left."""
    draw, out, kills, met = random.Random(seed), tmp_path / "data", [], set[str]()
    shutil.copytree(whole, out, ignore=lambda folder, names: [one for one in names if one != "experiment.py"])
    command = [sys.executable, "-c", MAIN, "prepare", str(raw), "--out", str(out)]
    while True:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                names = {path.relative_to(out).as_posix() for path in out.rglob("*")} - met
                if any(draw.random() < 0.3 for _ in names):
                    time.sleep(draw.random() * 0.3)
                    process.send_signal(signal.SIGKILL)
                    kills.append(sorted(names))
                met |= names
                time.sleep(0.002)
            if process.wait() == 0:
                break
            assert process.returncode == -signal.SIGKILL
    print(f"{len(kills)} kills: {[one[-1] for one in kills]}")
    assert kills
    assert content(out) == content(whole)


def test_twice_is_a_no_op_and_added_files_change_nothing_old(raw: pathlib.Path, tmp_path: pathlib.Path) -> None:
    grown = tmp_path / "raw"
    shutil.copytree(raw, grown)
    out = tmp_path / "data"
    prepare(grown, out)
    before, stamps = records_of(out), {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    prepare(grown, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == stamps
    old = content(out)
    make(grown, range(COUNT, COUNT + 20))
    prepare(grown, out)
    after = records_of(out)
    assert sum(map(len, after.values())) == COUNT + 20
    for split, records in before.items():
        for one, other in zip(records, after[split], strict=False):
            assert all(np.array_equal(one[field], other[field]) for field in one)
    data = {name for name in old if name.endswith(".array_record")}
    assert data
    assert {name: content(out)[name] for name in data} == {name: old[name] for name in data}


def conventions(raw: pathlib.Path, place: pathlib.Path) -> dict[str, pathlib.Path]:
    """The same files in other ways: shards of webdataset, a table, and names of folders."""
    shards, table, folders = place / "shards", place / "table", place / "folders"
    shards.mkdir()
    for number in range(4):
        with tarfile.open(shards / f"{number:06d}.tar", "w") as archive:
            for path in sorted(raw.iterdir())[number * 3 * COUNT // 4 : (number + 1) * 3 * COUNT // 4]:
                archive.add(path, path.name)
    shutil.copytree(raw, table)
    rows = []
    for path in sorted(table.glob("*.txt")):
        rows.append(
            {"file_name": f"{path.stem}.png", "sound_file_name": f"{path.stem}.wav", "caption": path.read_text()}
        )
        path.unlink()
    (table / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number in range(COUNT):
        name = NAMES[number % 4]
        (folders / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(raw / f"{number:03d}.png", folders / name)
    return {"shards": shards, "table": table, "folders": folders}


@pytest.mark.parametrize("name", ["stems", "shards", "table", "folders"])
def test_three_commands(raw: pathlib.Path, tmp_path: pathlib.Path, name: str) -> None:
    """With a few steps of a small model; the records are those of the files, whatever the convention."""
    given = raw if name == "stems" else conventions(raw, tmp_path)[name]
    out, run, made = tmp_path / "data", tmp_path / "run", tmp_path / "made.png"
    prepare(given, out)
    records = [record for split in records_of(out).values() for record in split]
    assert len(records) == COUNT
    text = "label" if name == "folders" else "caption"
    said = sorted(str(record[text]).removeprefix("a piece of ") for record in records)
    assert said == sorted(NAMES * (COUNT // 4))
    small = ["--train.steps=6", "--train.checkpoint-every=3", "--model.width=32", "--model.depth=1", "--batch.size=8"]
    assert main(["train", str(out / "experiment.py"), "--workdir", str(run), *small]) == 0
    assert main(["sample", str(run), "--from", f"{text}={said[0]}", "--to", "picture", "--out", str(made)]) == 0
    assert PIL.Image.open(made).size[0] > 0
    assert main(["evaluate", str(run), "--eval.examples", "4"]) == 0
    assert main(["show", str(out)]) == 0
