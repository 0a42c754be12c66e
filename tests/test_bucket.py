"""On a store: everything on `gs://`, and raw files on `s3://`, against emulators."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from emulator import emulated, free_port, served
from jobs import MAIN
from PIL import Image
from sweeps import write

from omnijax import lock, paths
from omnijax.cli import main
from omnijax.data.prepare import prepare
from omnijax.errors import CheckpointError, ConfigError
from omnijax.files import GrowingFile, append_line, read_lines, read_object, write_object
from omnijax.lock import ObjectLock, locked
from omnijax.paths import as_path, files_below, local_copy, read_version, swap
from omnijax.run.checkpoint import Checkpoints

SMALL = ["--train.steps=12", "--train.checkpoint-every=4", "--train.log-every=2", "--optim.warmup-steps=2"]
SMALL += ["--model.width=32", "--model.depth=1", "--eval.examples=2", "--batch.size=8"]


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with emulated("bucket") as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def place(request: pytest.FixtureRequest) -> pathlib.Path:
    """A folder on the store that nothing else uses."""
    return as_path(f"gs://bucket/{request.node.name}")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Pictures of one colour, with its name."""
    folder, rng = tmp_path_factory.mktemp("raw"), np.random.default_rng(0)
    for number in range(24):
        colour = rng.integers(0, 256, 3).astype(np.uint8)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8) + colour).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("red" if colour[0] > colour[2] else "blue")
    return folder


# ------------------------------------------------------------------ the one condition that all of it stands on


def test_an_object_is_replaced_only_if_it_is_what_was_read(place: pathlib.Path) -> None:
    path = place / "object"
    assert read_version(path) == (b"", 0)
    first = swap(path, 0, b"first")
    assert first
    assert read_version(path) == (b"first", first)
    assert not swap(path, 0, b"second"), "the emulator has to answer 412 to a second create"
    second = swap(path, first, b"second")
    assert second not in (0, first)
    assert not swap(path, first, b"third")
    assert read_version(path) == (b"second", second)
    path.unlink()
    assert not swap(path, second, b"third")
    assert not path.exists()


def test_no_request_goes_past_the_emulator(place: pathlib.Path) -> None:
    """gcsfs's extended file system asks storage.googleapis.com for the kind of the bucket, whatever the emulator."""
    assert type(place.fs).__module__ == "gcsfs.core"  # type: ignore[attr-defined]


def test_lines_of_several_writers_are_all_there(place: pathlib.Path) -> None:
    path = place / "log.jsonl"
    writers = [
        threading.Thread(target=lambda k=k: [append_line(path, {"writer": k, "line": n}) for n in range(8)])
        for k in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = [(line["writer"], line["line"]) for line in read_lines(path)]
    assert sorted(lines) == [(k, n) for k in range(3) for n in range(8)]
    assert all([n for k, n in lines if k == writer] == list(range(8)) for writer in range(3))


def test_a_growing_file_is_whole_after_a_flush(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place / "file"
    file = GrowingFile(path, b"begin ")
    file.write(b"more ")
    assert path.read_bytes() == b"begin "
    file.flush()
    assert path.read_bytes() == b"begin more "
    monkeypatch.setattr("omnijax.files.FLUSH_SECONDS", 0.0)
    file.write(b"again ")
    assert path.read_bytes() == b"begin more again "
    file.write(b"end")
    file.close()
    assert path.read_bytes() == b"begin more again end"


def test_a_copy_is_that_of_the_newest_version(place: pathlib.Path) -> None:
    path = place / "data"
    path.write_bytes(b"old")
    old = local_copy(path)
    assert old.read_bytes() == b"old"
    old.write_bytes(b"kept")
    assert local_copy(path).read_bytes() == b"kept", "nothing is fetched twice"
    path.write_bytes(b"new")
    assert local_copy(path).read_bytes() == b"new"
    with paths.writing(path) as file:
        file.write_bytes(b"written")
    assert path.read_bytes() == local_copy(path).read_bytes() == b"written"
    with contextlib.suppress(RuntimeError), paths.writing(path) as file:
        file.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"written"


def test_folders_are_listed_moved_and_deleted(place: pathlib.Path) -> None:
    for name in ("a/one", "a/b/two", "c/three"):
        (place / name).write_bytes(name.encode())
    assert {name: size for name, (size, _) in files_below(place).items()} == {"a/b/two": 7, "a/one": 5, "c/three": 7}
    paths.move(place / "a", place / "d")
    paths.delete_tree(place / "c")
    paths.delete_tree(place / "nothing")
    assert list(files_below(place)) == ["d/b/two", "d/one"]
    assert (place / "d" / "b" / "two").read_bytes() == b"a/b/two"
    assert {name.partition("/")[0] for name in files_below(as_path("gs://bucket"))} >= {place.name}


def test_objects_of_json_are_checked(place: pathlib.Path) -> None:
    write_object(place / "o.json", {"a": 1})
    assert read_object(place / "o.json", ("a",), "") == {"a": 1}


def test_what_cannot_be_reached_is_an_error(capfd: pytest.CaptureFixture[str], raw: pathlib.Path) -> None:
    assert main(["prepare", str(raw), "--out", "gs://nobody/data"]) == 2
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert "gs://nobody/data" in told
    assert "check the name of the bucket" in told
    for wrong in ("ftp://bucket/x", "gs://", "s3:///"):
        with pytest.raises(ConfigError, match=r"must be a local path, gs://BUCKET/… or s3://BUCKET/…"):
            as_path(wrong)
    for wrong in ("gs://bucket/a*", "gs://bucket/a[1]", "gs://bucket/a::b", "s3://bucket/a?"):
        with pytest.raises(ConfigError, match="which its packages read as patterns"):
            as_path(wrong)
    for command in (["evaluate", "gs://nobody/run"], ["train", "gs://nobody/a.py"], ["show", "gs://nobody/data"]):
        assert main(command) == 2
        told = capfd.readouterr().err
        assert told.count("\n") == 1, told
        assert "Traceback" not in told
    assert main(["prepare", str(raw), "--out", "s3://bucket/x"]) == 2
    assert "s3:// is for raw files only" in capfd.readouterr().err


# ------------------------------------------------------------------ locks

HOLD = """
import pathlib, sys, time
from omnijax.lock import locked
from omnijax.paths import as_path
with locked(as_path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def holding(path: pathlib.Path) -> subprocess.Popen[bytes]:
    """A process that holds a lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_one_holder_at_a_time_and_a_dead_one_does_not_block(
    place: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = place / ".lock"
    with holding(path) as process:
        try:
            with locked(path, wait=False) as mine:
                assert mine is None
        finally:
            process.kill()
        process.wait()
        with locked(path, wait=False) as mine:
            assert mine is not None
            mine.check()
            with locked(path, wait=False) as other:
                assert other is None
    assert f"taken over: process {process.pid}" in capfd.readouterr().err
    assert read_version(path)[0] == b""
    with locked(path):
        pass


def test_a_silent_holder_elsewhere_is_replaced_and_finds_out(
    place: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "DEAD_AFTER_SECONDS", 1.0)
    monkeypatch.setattr(lock, "_state_here", lambda holder: "")
    path = place / ".lock"
    first = ObjectLock(path)
    with monkeypatch.context() as patch:
        patch.setattr(ObjectLock, "_touch", lambda self: None)  # it is suspended
        assert first.take(first.read()[1])
        first.check()
    began = time.monotonic()
    with locked(path) as second:
        assert time.monotonic() > began + 1
        with pytest.raises(CheckpointError, match="has taken it over"):
            first.check()
        assert second is not None
        second.check()
        first.release()
        second.check()
        path.unlink()
        second.check()  # a lock that somebody deleted is written again
        assert path.exists()


def test_a_holder_elsewhere_that_touches_its_lock_keeps_it(
    place: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "DEAD_AFTER_SECONDS", 2.0)
    monkeypatch.setattr(lock, "TOUCH_SECONDS", 0.3)
    monkeypatch.setattr(lock, "_state_here", lambda holder: "")
    with locked(place / ".lock") as first, locked(place / ".lock", wait=False) as second:
        assert first is not None
        assert second is None


def test_of_many_that_start_together_one_holds(place: pathlib.Path) -> None:
    inside, most, guard = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with locked(place / ".lock"):
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.05)
            with guard:
                inside -= 1

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == 1
    assert inside == 0


# ------------------------------------------------------------------ the commands


def manifest_of(data: pathlib.Path) -> dict[str, dict[str, object]]:
    """The sizes and hashes of the files of a data set."""
    return read_object(data / "manifest.json", ("files",), "")["files"]  # type: ignore[no-any-return]


def parameters(run: pathlib.Path) -> list[np.ndarray]:
    from omnijax.evaluate.loading import OpenRun

    with OpenRun(run) as opened:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(opened.load().generator.params)]


@pytest.mark.proof
def test_all_commands_give_on_a_store_what_they_give_on_disk(
    place: pathlib.Path, raw: pathlib.Path, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    local, far = tmp_path / "mine", place / "mine"
    for data in (local, far):
        assert main(["prepare", str(raw), "--out", str(data), *SMALL]) == 0
    assert manifest_of(far) == manifest_of(local)
    assert main(["prepare", str(raw), "--out", str(far), *SMALL]) == 0  # nothing is left to do
    assert main(["train", str(local / "experiment.py"), "--workdir", str(tmp_path / "run"), *SMALL]) == 0

    command = ["train", str(far / "experiment.py"), "--workdir", str(place / "run"), *SMALL]
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        while not (place / "run" / "checkpoints" / "4" / "commit_success.txt").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert main(command) == 0
    ours, theirs = parameters(place / "run"), parameters(tmp_path / "run")
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))
    runs = place / "run", tmp_path / "run"
    lines = [[(line["step"], line["loss"]) for line in read_lines(run / "metrics.jsonl")] for run in runs]
    assert lines[0] == lines[1]

    for run in runs:
        assert main(["evaluate", str(run)]) == 0
        out = tmp_path / f"{len(str(run))}.png"
        assert main(["sample", str(run), "--from", "caption=red", "--to", "picture", "--out", str(out)]) == 0
    pictures = [path.read_bytes() for path in tmp_path.glob("*.png")]
    assert len(pictures) == 2
    assert pictures[0] == pictures[1]
    figures = [json.loads((run / "eval.json").read_text())["bits_per_item"] for run in runs]
    assert figures[0] == figures[1]
    assert (place / "run" / "report.html").read_text().startswith("<!DOCTYPE html>")
    pictures, written = tmp_path / "pictures", place / "said.jsonl"
    pictures.mkdir()
    for number in range(2):
        (pictures / f"{number}.png").write_bytes((raw / f"{number}.png").read_bytes())
    command = ["sample", str(place / "run"), "--from", f"picture={pictures}", "--to", "caption", "--out", str(written)]
    assert main(command) == 0
    assert len(written.read_text().splitlines()) == 2
    assert main(["show", str(far)]) == 0
    assert any((place / "run").glob("tensorboard/events*"))
    capfd.readouterr()


def test_raw_files_on_a_store_become_the_same_data_set(
    place: pathlib.Path, raw: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for path in raw.iterdir():
        (place / "raw" / path.name).write_bytes(path.read_bytes())
    for source, out in ((place / "raw", tmp_path / "far"), (raw, tmp_path / "near")):
        assert main(["prepare", str(source), "--out", str(out), *SMALL]) == 0
    assert manifest_of(tmp_path / "far") == manifest_of(tmp_path / "near")


@pytest.mark.proof
def test_raw_files_on_s3(raw: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="Colab's wrapt is too new for the aiobotocore of s3fs")
    with free_port() as port, served([sys.executable, "-m", "moto.server", "-p", str(port)], port):
        for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        folder = as_path("s3://bucket/raw")
        as_path("s3://bucket").mkdir()
        for path in raw.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        for source, out in ((folder, tmp_path / "far"), (raw, tmp_path / "near")):
            assert main(["prepare", str(source), "--out", str(out), *SMALL]) == 0
    assert manifest_of(tmp_path / "far") == manifest_of(tmp_path / "near")


@pytest.mark.proof
def test_a_sweep_on_a_store(place: pathlib.Path, small_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    write(tmp_path / "small.py", str(small_data), "points=1, budget=Budget('items', 300.0)")
    from sweeps import small_config

    prepare(small_config(str(small_data)))
    command = ["sweep", str(tmp_path / "small.py"), "--seeds", "1", "--only", "base=17"]
    assert main([*command, "--out", str(place / "sweep")]) == 0
    assert main([*command, "--out", str(tmp_path / "sweep")]) == 0
    results = [out / "arms" / "base=17" / "seed0" / "result.json" for out in (place / "sweep", tmp_path / "sweep")]
    ours, theirs = (read_object(path, ("bits",), "") for path in results)
    assert ours["bits"] == theirs["bits"]
    assert main([*command, "--out", str(place / "sweep")]) == 0  # all is done
    names = set(files_below(place / "sweep"))
    assert {"sweep.json", "report.html", "arms/base=17/seed0.log"} <= names
    with Checkpoints(place / "sweep" / "arms" / "base=17" / "seed0") as checkpoints:
        assert len(checkpoints.steps) == 1
    assert os.path.isdir(tmp_path / "sweep")
