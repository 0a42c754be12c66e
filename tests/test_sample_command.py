"""Batches of samples, which go on where they were stopped, and runs whose experiment file comes from elsewhere."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from omnijax.cli import RESUMABLE, main
from omnijax.evaluate import load, sample_command
from omnijax.evaluate.trained_run import TrainedRun
from omnijax.modalities import Picture, Text
from omnijax.sample.generate import Generator

EXPERIMENT = '''
"""Words, and pictures of any size up to 2 × 2."""

import dataclasses

import numpy as np

from omnijax.config import BatchConfig, Config, EvalConfig, ModelConfig, Task, TrainConfig, Writing
from omnijax.modalities import Picture, Text
from omnijax.source import Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toys(Source):
    @property
    def fields(self):
        picture = Picture(height=2, width=2, levels=4, patch=1, variable=True)
        return {"word": Text(least=1, most=3), "picture": picture}

    def records(self, split):
        random = np.random.default_rng(0)
        return [
            {"word": f"w{n}", "picture": random.integers(0, 4, (1 + n % 2, 1 + n // 2 % 2)).astype(np.uint8)}
            for n in range(16)
        ]


def get_config():
    tasks = (Task(("word", "picture"), weights=(0.0, 1.0)), Task(("picture", "word"), weights=(0.0, 1.0)))
    return Config(
        Toys(),
        BatchConfig(tasks, size=8, sequence_length=32),
        model=ModelConfig(depth=1, width=16, heads=2, kv_heads=1, head_size=8, mlp_width=16),
        writing=Writing(base=4),
        train=TrainConfig(steps=2, checkpoint_every=2),
        eval=EvalConfig(batch_size=4, examples=4),
    )
'''
WORDS = ["a", "bc", "def", "g", "hi", "jkl", "m", "no"]  # two chunks


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A place of its own for what this user trusts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def run(home, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("toys")
    (folder / "toys.py").write_text(EXPERIMENT)
    assert main(["train", str(folder / "toys.py"), "--workdir", str(folder / "run")]) == 0
    return folder / "run"


def refused(arguments: list, capsys: pytest.CaptureFixture) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("omnijax: ")
    assert "Fix: " in said
    return said


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def size_of(path: pathlib.Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, number: int) -> None:
    """Interrupts the process when a function of `owner` is called for the n-th time."""
    calls: list[int] = []
    function = getattr(owner, name)

    def killing(*given):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return function(*given)

    monkeypatch.setattr(owner, name, killing)


def command(run: pathlib.Path, given: str, to: str, out: pathlib.Path) -> list[str]:
    return ["sample", str(run), "--from", given, "--to", to, "--out", str(out), "--seed", "3"]


@pytest.fixture
def words(tmp_path) -> pathlib.Path:
    path = tmp_path / "words.jsonl"
    lines = [json.dumps({"id": f"word-{n}", "word": word}) for n, word in enumerate(WORDS)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def pictures(tmp_path) -> pathlib.Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(10):  # the third chunk has two
        Image.fromarray(random.integers(0, 256, (2, 1 + number % 2)).astype(np.uint8)).save(folder / f"p{number}.png")
    (folder / ".DS_Store").write_text("no picture")
    return folder


def test_a_batch_of_lines_goes_on_where_it_was_killed(run, words, tmp_path, monkeypatch, capsys) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert main(command(run, f"word={words}", "picture", whole)) == 0
    assert "8 samples, 8 of them new" in capsys.readouterr().out
    assert sorted(content(whole)) == sorted(f"word-{n}.png" for n in range(8))
    assert {size_of(whole / name) for name in content(whole)} <= {(w, h) for w in (1, 2) for h in (1, 2)}
    with monkeypatch.context() as patch:
        stop_at(patch, sample_command, "write_file", 7)  # in the middle of the second chunk
        assert main(command(run, f"word={words}", "picture", part)) == RESUMABLE
    assert len(content(part)) == 6
    assert main(command(run, f"word={words}", "picture", part)) == 0
    assert "8 samples, 2 of them new" in capsys.readouterr().out
    assert content(part) == content(whole)
    monkeypatch.setattr(Generator, "generate", lambda *given, **more: pytest.fail("all of it is there"))
    assert main(command(run, f"word={words}", "picture", part)) == 0
    assert "8 samples, 0 of them new" in capsys.readouterr().out


def test_a_batch_of_files_goes_on_in_lines_where_one_was_cut_off(run, pictures, tmp_path, monkeypatch, capsys) -> None:
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    assert main(command(run, f"picture={pictures}", "word", whole)) == 0
    lines = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"p{n}" for n in range(10)]
    assert all(len(line["word"]) >= 1 for line in lines)
    with monkeypatch.context() as patch:
        stop_at(patch, Text, "show", 6)
        assert main(command(run, f"picture={pictures}", "word", part)) == RESUMABLE
    # Each line is written as soon as its sample is there.
    assert part.read_bytes().splitlines() == whole.read_bytes().splitlines()[:5]
    with part.open("a") as file:
        file.write('{"id": "p5", "wo')
    with part.open("ab") as file:
        file.write("ü".encode()[:1])  # a kill may also cut a letter in two
    assert main(command(run, f"picture={pictures}", "word", part)) == 0
    assert part.read_bytes() == whole.read_bytes()
    # In a folder, too.
    assert main(command(run, f"picture={pictures}", "word", tmp_path / "texts")) == 0
    assert sorted(content(tmp_path / "texts")) == sorted(f"p{n}.txt" for n in range(10))


def test_a_batch_has_what_each_input_has_alone_and_python_gives_the_same(run, words, tmp_path) -> None:
    """The first chunk is what `sample_batch` draws with this seed."""
    assert main(command(run, f"word={words}", "picture", tmp_path / "out")) == 0
    trained = load(run)
    made = trained.sample_batch([{"word": word} for word in WORDS[:4]], "picture", seed=3)
    for number, picture in enumerate(made):
        with (tmp_path / "out" / f"word-{number}.png").open("rb") as stream:
            np.testing.assert_array_equal(trained.modalities["picture"].read(stream), picture)


def test_several_samples_of_one_input_are_a_sheet(run, tmp_path, capsys) -> None:
    out = tmp_path / "sheet.png"
    assert main([*command(run, "word=ab", "picture", out), "--count", "4"]) == 0
    assert capsys.readouterr().out.strip() == f"word → picture: {out}"
    assert max(size_of(out)) > 8
    assert len(load(run).sample({"word": "ab"}, "picture", count=4)) == 4
    one = load(run).sample({"word": "ab"}, "picture")
    assert one.ndim == 2


def test_a_word_can_come_from_a_file(run, tmp_path) -> None:
    (tmp_path / "word.txt").write_text("ab\n")
    for given, out in ((f"word=@{tmp_path / 'word.txt'}", "a.png"), ("word=ab", "b.png")):
        assert main(command(run, given, "picture", tmp_path / out)) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_the_reader_of_a_modality_raises_names_the_file(run, tmp_path, monkeypatch, capsys) -> None:
    def read(self: Picture, stream: object) -> None:
        raise LookupError("no header")

    monkeypatch.setattr(Picture, "read", read)
    (tmp_path / "bad.png").write_bytes(b"?")
    said = refused(["sample", run, "--from", f"picture={tmp_path / 'bad.png'}", "--to", "word"], capsys)
    assert "bad.png" in said
    assert "Picture.read can't read it (LookupError: no header)" in said


@pytest.mark.parametrize(
    "lines, more, said",
    [
        ('{"word": "a"}\n{"word"', [], "words.jsonl:2 = "),
        ('{"id": "x", "word": "a"}\n{"id": "x", "word": "b"}', [], "each line has an id of its own"),
        ('{"id": "../x", "word": "a"}', [], "can be the name of a file"),
        ('{"colour": "red"}', [], "the fields of the run are word, picture"),
        ('{"word": "a"}\n{"picture": "none.png"}', [], "'none.png': there is no such file"),
        ('"a"', ["--count", "2"], "a batch has one sample of each input"),
        ('"a"', ["--out", "b.jsonl"], "a batch needs a folder"),
        ('"a"', ["--out", "words.jsonl.txt"], "there is a file of this name"),
        ('"a"', ["--from", "picture=x.png"], "a folder or a .jsonl file stands alone"),
        (b"\xff", [], "text in UTF-8"),
    ],
)
def test_a_batch_that_can_not_be_is_refused_before_anything_is_written(
    run, tmp_path, monkeypatch, capsys, lines, more, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.jsonl").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    (tmp_path / "words.jsonl.txt").write_text("here")
    arguments = ["sample", run, "--from", "word=words.jsonl", "--to", "picture", "--out", "out", *more]
    assert said in refused(arguments, capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["words.jsonl", "words.jsonl.txt"]


@pytest.mark.parametrize("there", ['{"id": "a", "note": "mine"}\n', "mine\n", "mine"])
def test_a_file_of_somebody_else_is_refused_and_stays(run, pictures, tmp_path, capsys, there: str) -> None:
    out = tmp_path / "notes.jsonl"
    out.write_text(there)
    said = refused(command(run, f"picture={pictures}", "word", out), capsys)
    assert "give the name of a new file" in said
    assert out.read_text() == there


def test_samples_that_can_not_be_decoded_are_counted(run, words, tmp_path, monkeypatch, capsys) -> None:
    drawn = TrainedRun.sample_batch
    monkeypatch.setattr(TrainedRun, "sample_batch", lambda *given: [None, *drawn(*given)[1:]])
    assert main(command(run, f"word={words}", "picture", tmp_path / "out")) == 0
    assert "8 samples, 8 of them new, 2 can't be decoded" in capsys.readouterr().out
    assert main([*command(run, "word=ab", "picture", tmp_path / "sheet.png"), "--count", "4"]) == 0
    assert "1 of 4 samples can't be decoded" in capsys.readouterr().out


def test_an_empty_folder_is_no_batch(run, tmp_path, capsys) -> None:
    said = refused(command(run, f"picture={tmp_path}", "word", tmp_path / "out.jsonl"), capsys)
    assert "the folder has no files" in said


def test_no_file_of_a_folder_is_left_out(run, pictures, tmp_path, capsys) -> None:
    out = tmp_path / "out.jsonl"
    Image.new("L", (2, 2)).save(pictures / "large.JPG")
    assert main(command(run, f"picture={pictures}", "word", out)) == 0
    assert "11 samples, 11 of them new" in capsys.readouterr().out
    (pictures / "notes.md").write_text("no picture")
    assert "notes.md" in refused(command(run, f"picture={pictures}", "word", tmp_path / "b.jsonl"), capsys)
    (pictures / "notes.md").rename(pictures / "p1.gif")
    said = refused(command(run, f"picture={pictures}", "word", tmp_path / "b.jsonl"), capsys)
    assert "p1.gif and p1.png differ in their endings only" in said
    assert not (tmp_path / "b.jsonl").exists()


@pytest.mark.parametrize("lines", [False, True], ids=["folder", "lines"])
def test_samples_of_another_command_are_not_taken_for_those_of_this_one(
    run, pictures, tmp_path, capsys, lines: bool
) -> None:
    out = tmp_path / ("words.jsonl" if lines else "words")
    first = command(run, f"picture={pictures}", "word", out)
    assert main(first) == 0
    made = out.read_bytes() if lines else content(out)
    for more, said in (
        (["--seed", "7"], "seed is 3 there and 7 here"),
        (["--eval.targets.word.top_p", "0.5"], "knobs is [] there and ['--eval.targets.word.top_p', '0.5'] here"),
    ):
        assert said in refused([*first, *more], capsys)
    Image.new("L", (1, 1)).save(pictures / "p3.png")
    assert "inputs is" in refused(first, capsys)
    assert (out.read_bytes() if lines else content(out)) == made


def test_inputs_are_not_taken_for_samples(run, tmp_path, capsys) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "a.txt").write_text("ab")
    said = refused(["sample", run, "--from", f"word={folder}", "--to", "word", "--out", folder], capsys)
    assert "'a' is there, and no such command made it" in said


def test_a_pipe_or_a_device_is_left_alone(run, tmp_path, capsys) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "it is a device or pipe" in refused(command(run, "word=ab", "picture", tmp_path / "pipe.png"), capsys)
    assert (tmp_path / "pipe.png").is_fifo()
    Image.new("L", (1, 1)).save(tmp_path / "there.png")
    (tmp_path / "link.png").symlink_to("there.png")
    before = (tmp_path / "there.png").read_bytes()
    assert main(command(run, "word=ab", "picture", tmp_path / "link.png")) == 0
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "there.png").read_bytes() != before


def test_text_files_of_windows_are_read(run, tmp_path) -> None:
    (tmp_path / "word.txt").write_bytes(b"\xef\xbb\xbfab\r\n")
    trained = load(run)
    found = sample_command.read_value(trained, "word", f"@{tmp_path / 'word.txt'}")
    assert found == sample_command.read_value(trained, "word", "ab")


# ---------------------------------------------------------------------- a run from elsewhere


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "RUN", "--from", "picture=p.png", "--to", "word"],
        ["rank", "RUN", "--from", "picture=p.png", "--to", "word", "--among", "a", "b"],
        ["evaluate", "RUN", "--steps", "last", "--tasks", "completions"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_run_from_elsewhere_executes_nothing_until_it_is_trusted(
    run, tmp_path, monkeypatch, capsys, arguments: list[str]
) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    file = other / "experiment.py"
    file.write_text(file.read_text() + f"\nopen({str(tmp_path / 'executed')!r}, 'a').close()\n")
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "p.png")
    monkeypatch.chdir(tmp_path)
    arguments = [str(other) if one == "RUN" else one for one in arguments]
    capsys.readouterr()
    assert main(arguments) != 0
    assert "the run comes from elsewhere, and loading it executes this file" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()
    assert main([*arguments, "--trust"]) == 0
    assert f"executing {file}" in capsys.readouterr().err
    assert (tmp_path / "executed").exists()
    # A run that was trained here needs no word.
    assert main([str(run) if one == str(other) else one for one in arguments]) == 0
