import dataclasses
import json
import os
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest
import scipy.io.wavfile
from PIL import Image

import omnijax.train
from omnijax.cli import RESUMABLE, main
from omnijax.config import Config, to_dict
from omnijax.data.prepare import prepare
from omnijax.data.sources.spoken_digits.settings import WORDS
from omnijax.evaluate import load
from omnijax.experiment import load_experiment
from omnijax.files import read_object, write_object

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
STEPS = 6
DIRECTIONS = [
    f"{source}->{target}"
    for source in ("text", "image", "speech")
    for target in ("text", "image", "speech")
    if source != target
]


@pytest.fixture(scope="module")
def experiment(small_data, tmp_path_factory) -> pathlib.Path:
    """The small experiment as a file. It evaluates eight records, one for each device: the batch of a single sample."""
    file = tmp_path_factory.mktemp("experiment") / "small.py"
    file.write_text(
        "from pathlib import Path\n"
        "from omnijax.experiment import load_experiment, override\n"
        "from omnijax.testing import shrink\n\n\n"
        "def get_config():\n"
        f"    small = shrink(load_experiment(Path({str(DIGITS)!r})), Path({str(small_data)!r}))\n"
        "    return override(small, ['--model.depth', '1', '--eval.examples', '8', '--eval.batch_size', '8'])\n"
    )
    prepare(load_experiment(file))
    return file


@pytest.fixture(scope="module")
def config(experiment: pathlib.Path) -> Config:
    return load_experiment(experiment)


@pytest.fixture(scope="module")
def run(experiment: pathlib.Path, one_memory_size, tmp_path_factory) -> pathlib.Path:
    """A run of a few steps."""
    run = tmp_path_factory.mktemp("runs") / "small"
    assert main(["train", str(experiment), "--workdir", str(run), "--train.steps", str(STEPS)]) == 0
    return run


def refused(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    """What a command says that ends with exit status 2."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("omnijax: ")
    assert "Fix: " in said.err
    assert said.err.count("\n") == 1
    return said.err


# ---------------------------------------------------------------------- help


@pytest.mark.parametrize(
    "command, words",
    [
        ([], ["train", "evaluate", "sample", "rank", "sweep", "plan", "prepare", "vocab"]),
        (["train"], ["--workdir", "--knobs", "--model.depth 6", "same command"]),
        (
            ["evaluate"],
            ["eval.json", "report.html", "RUN", "--steps", "--tasks", "--watch", "--again", "--trust", "--mesh.data 2"],
        ),
        (["sample"], ["--from FIELD=VALUE", "--to FIELD", "--out", "--count", "--seed", "--trust", ".jsonl", "@FILE"]),
        (["rank"], ["--from", "--to", "--among VALUE", "--trust", "likelihood"]),
        (["prepare"], ["get_config()"]),
        (["vocab"], ["example", "cost"]),
        (["vocab", "cost"], ["--bases", "64,64,4096", "--json", "omnijax train"]),
        (["vocab", "example"], ["--printed", "--json"]),
    ],
    ids=" ".join,
)
def test_help_explains(command: list[str], words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize(
    "command", ["", "dance", "vocab example --fast", "sample runs/x", "rank runs/x --from text=one"]
)
def test_what_is_no_command_ends_with_usage(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    assert caught.value.code == 2
    assert "usage: omnijax" in capsys.readouterr().err


# ---------------------------------------------------------------------- train


def test_knobs_are_listed_with_their_meaning_and_value(experiment: pathlib.Path, tmp_path, capsys) -> None:
    assert main(["train", str(experiment), "--knobs", "--model.depth", "7", "--workdir", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--model.depth INT (default: 7)" in said
    assert "At the end of the warm-up." in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--model.detph", "6"], "perhaps you mean model.depth"),
        (["--model.depth", "six"], "invalid literal for int()"),
        (["--batch.size", "7"], "batch.size = 7: must divide"),
        (["--mesh.tensor", "3"], "must multiply to the 8 devices"),
        (["--model.kv_heads", "3"], "must divide model.heads"),
        (["--writing.digits", "5"], "VocabularyError: vocabulary.base = 17: a digit needs a token"),
        (["--writing.position", "none", "--writing.width", "minimal"], "nothing says where an id ends"),
        (["--writing.positions", "9"], "the position tokens reach 8"),
        (["--data.image.levels", "70000"], "ConfigError: data.image.levels = 70000: must be in 2 … 65536"),
        (["--batch.sequence_length", "50"], "set batch.sequence_length to 90 or more"),
        (["--eval.split", "test"], "the splits are train, validation"),
        (["--data.seed", "5"], "DataError: data.seed = 5"),
        (["--data.speech.mels", "20"], "was built with 40"),
    ],
    ids=lambda part: part[0] if isinstance(part, list) else "",
)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(
    experiment: pathlib.Path, tmp_path, capsys, arguments: list[str], said: str
) -> None:
    found = refused(["train", experiment, "--workdir", tmp_path / "run", *arguments], capsys)
    assert said in found
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_experiment_is_refused(tmp_path, capsys) -> None:
    for command in ("train", "prepare"):
        assert "there is no such file" in refused([command, tmp_path / "none.py"], capsys)


def test_a_run_of_another_configuration_is_refused(experiment: pathlib.Path, run: pathlib.Path, capsys) -> None:
    said = refused(["train", experiment, "--workdir", run], capsys)
    assert f"CheckpointError: workdir = '{run}'" in said
    assert f"train.steps is {STEPS} there and 40 here" in said


def test_a_run_says_what_it_was_made_with(experiment: pathlib.Path, run: pathlib.Path) -> None:
    config = load_experiment(experiment)
    made = json.loads((run / "run.json").read_text())
    assert made["command"] == f"omnijax train {experiment} --workdir {run} --train.steps {STEPS}"
    assert made["versions"]["jax"] == jax.__version__
    assert made["device"].startswith("8 × cpu")
    assert made["vocabulary"] == config.vocabulary.fingerprint
    expected = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=STEPS))
    assert read_object(run / "config.json", (), "") == to_dict(expected)


@pytest.mark.parametrize("stopped, status", [(False, 0), (True, RESUMABLE)])
def test_a_run_is_named_for_its_experiment_and_says_how_it_ended(
    experiment: pathlib.Path, monkeypatch, capsys, stopped: bool, status: int
) -> None:
    asked = []

    def pretend(
        config: Config, run: pathlib.Path, command: str, stop: object, file: pathlib.Path
    ) -> omnijax.train.Outcome:
        assert stop is not None  # signals are caught from the start
        assert file == experiment
        asked.append((config.model.depth, run, command))
        return omnijax.train.Outcome(None, 5, stopped)

    monkeypatch.setattr(omnijax.train, "train", pretend)
    assert main(["train", str(experiment), "--model.depth", "3"]) == status
    assert asked == [(3, pathlib.Path("runs/small"), f"omnijax train {experiment} --model.depth 3")]
    assert "step 5" in "".join(capsys.readouterr())


# ---------------------------------------------------------------------- data


def truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage, rule", [(pathlib.Path.unlink, "it is missing"), (truncate, "it is damaged")])
def test_missing_and_truncated_data_are_refused(
    config: Config, experiment: pathlib.Path, run: pathlib.Path, tmp_path, capsys, damage, rule: str
) -> None:
    directory = tmp_path / "data"
    shutil.copytree(config.data.directory, directory)
    (file,) = (directory / "records").glob("*train*")
    damage(file)
    for command in ("prepare", "train"):
        workdir = ["--workdir", tmp_path / "run"] if command == "train" else []
        said = refused([command, experiment, "--data.directory", directory, *workdir], capsys)
        assert f"DataError: data file = '{file}': {rule}" in said
    assert [path.name for path in tmp_path.iterdir()] == ["data"]

    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    resolved = read_object(moved / "config.json", (), "")
    resolved["data"]["directory"] = str(directory)
    write_object(moved / "config.json", resolved)
    made = read_object(moved / "run.json", (), "")
    write_object(moved / "run.json", made | {"data": os.path.relpath(directory, moved)})
    assert rule in refused(["evaluate", moved], capsys)
    assert not (moved / "eval.json").exists()
    # What the modalities learned is stored with the run, so that it can be sampled without its data.
    shutil.rmtree(directory)
    assert main(["sample", str(moved), "--from", "text=one", "--to", "speech", "--out", str(tmp_path / "one.wav")]) == 0


def test_a_platform_without_the_synthesiser_is_refused(experiment: pathlib.Path, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    for command in ("prepare", "train"):
        workdir = ["--workdir", tmp_path / "run"] if command == "train" else []
        said = refused([command, experiment, "--data.directory", tmp_path / "data", *workdir], capsys)
        assert "PlatformError" in said
        assert "pip install" in said
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "run").exists()


def test_prepare_leaves_a_data_set_that_is_there_alone(config: Config, experiment: pathlib.Path, capsys) -> None:
    assert main(["prepare", str(experiment)]) == 0
    assert capsys.readouterr().out == f"{config.data.directory}: ready\n"


# ---------------------------------------------------------------------- evaluate


@pytest.fixture(scope="module")
def evaluated(run: pathlib.Path) -> dict:
    assert main(["evaluate", str(run)]) == 0
    return json.loads((run / "eval.json").read_text())


def test_evaluation_measures_every_direction(config: Config, evaluated: dict) -> None:
    count = config.eval.examples
    assert (evaluated["step"], evaluated["split"], evaluated["examples"]) == (STEPS, "validation", count)
    assert (evaluated["label"], evaluated["classes"]) == ("digit", [str(digit) for digit in range(10)])
    assert sorted(evaluated["directions"]) == sorted(DIRECTIONS)
    for name, found in evaluated["directions"].items():
        table, accuracy = np.array(found["confusion"]), found["accuracy"]
        assert table.shape == (10, 11)
        assert table.sum() == found["examples"] == count
        assert np.trace(table) / count == pytest.approx(accuracy)
        assert found["standard_error"] == pytest.approx((accuracy * (1 - accuracy) / count) ** 0.5)
        assert (found["through"][0], found["through"][-1]) == tuple(name.split("->"))
        assert found["chance"] == 0.1
        assert 0 <= found["shuffled"] <= 0.5
        assert ("judge_coded" in found) == name.endswith("->speech")  # nothing else loses anything
    assert evaluated["directions"]["text->image"]["judge"] > 0.5
    assert evaluated["directions"]["image->text"]["judge"] == 1.0
    assert "level_distance" in evaluated["directions"]["text->image"]["metrics"]
    assert set(evaluated["sampling"]) == {"text", "image", "speech"}
    assert evaluated["completions"] == {}
    assert evaluated["device"].startswith("8 × cpu")
    assert evaluated["seconds"] > 0


def test_whatever_is_sampled_under_the_grammar_is_decodable(evaluated: dict) -> None:
    """The run has seen a few steps: it is the grammar that makes it so."""
    assert evaluated["decodable"] == 1.0
    assert {found["decodable"] for found in evaluated["directions"].values()} == {1.0}
    assert evaluated["decodable_without_grammar"] < 0.5
    free = [found["decodable_without_grammar"] for found in evaluated["directions"].values()]
    assert np.mean(free) == pytest.approx(evaluated["decodable_without_grammar"])


def test_evaluation_gives_exact_bits(evaluated: dict) -> None:
    bits = evaluated["bits_per_item"]
    assert {"text", "image", "speech"} <= set(bits)
    for name, entry in bits.items():
        errors = entry["errors"]
        assert all(
            np.isfinite(value).all() for part, value in entry.items() if part not in ("errors", "units", "sources")
        ), name
        assert errors
        assert all(0 <= share <= 1 for share in errors.values()), name
        assert 0 < entry["renormalised"] <= entry["raw"], name
        assert entry["leak"] == pytest.approx(entry["raw"] - entry["renormalised"])
        assert entry["raw"] == pytest.approx(entry["digits"] + entry["position"], rel=1e-4), name
        assert sum(entry["by_place"]) == pytest.approx(entry["digits"], rel=1e-4) or name.startswith("text"), name
    assert bits["image"]["uniform"] == pytest.approx(4 * np.log2(17))
    assert bits["image"]["units"] == {"pixel": pytest.approx(bits["image"]["renormalised"] / 4)}
    assert bits["speech"]["units"] == {}  # its codes lose something
    assert evaluated["anchors"]["image"]["unit"] == "pixel"
    assert set(evaluated["anchors"]) == {"image", "text"}


def test_evaluation_keeps_examples_and_writes_the_report(config: Config, run: pathlib.Path, evaluated: dict) -> None:
    examples = json.loads((run / "examples.json").read_text())
    assert sorted(examples["directions"]) == sorted(DIRECTIONS)
    for name, shown in examples["directions"].items():
        assert len(shown) == config.eval.show
        for one in shown:
            assert set(one) == {"record", "class", "credit", "given", "between", "made", "real", "judged"}
            assert -1 <= one["judged"] < 10
            pieces = zip(name.split("->"), (one["given"], one["real"]), strict=True)
            assert all({"text": "<span", "image": "<img", "speech": "audio"}[field] in piece for field, piece in pieces)
    assert set(examples["real"]) == {"text", "image", "speech"}
    for field, shown in examples["real"].items():
        assert len(shown) == config.eval.show
        assert all((one["coded"] is None) == (field != "speech") for one in shown)
    report = (run / "report.html").read_text()
    assert report.lower().startswith("<!doctype html>")
    assert all(direction.replace("->", " → ") in report for direction in DIRECTIONS)
    assert list((run / "figures").glob("*.png"))


def test_a_directory_that_is_no_run_is_refused(run: pathlib.Path, tmp_path, capsys) -> None:
    sample = ["sample", "--from", "text=one", "--to", "image", "--out", tmp_path / "one.png"]
    for command in (["evaluate"], ["rank", "--among", "one"], sample):
        assert "it has no config.json" in refused([command[0], tmp_path, *command[1:]], capsys)
    shutil.copy(run / "config.json", tmp_path)
    assert "it has no checkpoint yet" in refused(["evaluate", tmp_path], capsys)


# ---------------------------------------------------------------------- cost


def test_costs_are_printed_and_given_as_json(experiment: pathlib.Path, capsys) -> None:
    assert main(["vocab", "cost", str(experiment)]) == 0
    said = capsys.readouterr().out
    assert "Cheapest in training FLOPs: base " in said
    assert main(["vocab", "cost", str(experiment), "--json", "--bases", "21", "9,99,9999", "--batch.size", "16"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"2", "17", "21", "65536"} <= set(found["costs"])
    assert any("9999" in base for base in found["costs"])
    row = found["costs"]["21"]
    assert row["logits_bytes"] == 16 * (row["sequence_length"] - 1) * row["padded_rows"] * 4


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["none.py"], "experiment = 'none.py': there is no such file"),
        ([DIGITS, "--bases", "2", "many"], "ConfigError: --bases = 'many': a base is a whole number"),
        ([DIGITS, "--model.dept", "2"], "ConfigError: override = '--model.dept': there is no such knob"),
        ([DIGITS, "--writing.positions", "2"], "the last position that can be written is 1"),
    ],
)
def test_costs_of_nothing_are_refused(arguments: list, capsys, said: str) -> None:
    assert said in refused(["vocab", "cost", *arguments], capsys)


# ---------------------------------------------------------------------- sample


@pytest.fixture(scope="module")
def signals(config: Config, tmp_path_factory) -> dict[str, str]:
    """A word, a picture and a sound of the validation split, as a user has them."""
    record = config.data.records("validation")[0]
    folder = tmp_path_factory.mktemp("signals")
    Image.fromarray(np.kron(record["image"] * 15, np.ones((16, 16), np.uint8))).save(folder / "digit.png")
    scipy.io.wavfile.write(folder / "digit.wav", config.data.speech.sample_rate_hz, record["speech"])
    return {"text": "seven", "image": str(folder / "digit.png"), "speech": str(folder / "digit.wav")}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_sampling_goes_in_every_direction(
    config: Config, run: pathlib.Path, signals: dict, tmp_path, capsys, direction: str
) -> None:
    source, target = direction.split("->")
    out = {"text": None, "image": tmp_path / "new" / "out.png", "speech": tmp_path / "new" / "out.wav"}[target]
    command = ["sample", str(run), "--from", f"{source}={signals[source]}", "--to", target]
    capsys.readouterr()
    assert main([*command, *(["--out", str(out)] if out else [])]) == 0
    said = capsys.readouterr().out.strip()
    if target == "text":
        assert 1 <= len(said) <= config.data.text.most
        return
    assert said.endswith(str(out))
    if target == "image":
        picture = np.asarray(Image.open(out))
        assert picture.shape == (128, 128)
        assert (picture.reshape(8, 16, 8, 16) == picture[::16, ::16][:, None, :, None]).all()
    else:
        rate, wave = scipy.io.wavfile.read(out)
        assert (rate, wave.dtype, wave.ndim) == (config.data.speech.sample_rate_hz, np.int16, 1)
        assert wave.size > 100


def test_the_seed_decides_what_is_drawn(run: pathlib.Path, tmp_path) -> None:
    def drawn(seed: str, name: str) -> bytes:
        out = tmp_path / name
        word = f"text={WORDS[3]}"
        assert main(["sample", str(run), "--from", word, "--to", "image", "--out", str(out), "--seed", seed]) == 0
        return out.read_bytes()

    assert drawn("0", "a.png") == drawn("0", "b.png") != drawn("1", "c.png")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--from", "text=one", "--to", "text"], "ConfigError: --to = 'text': the run goes "),
        (["--from", "text=one", "--to", "smell"], "--to = 'smell': the run can generate text, image, speech"),
        (["--from", "smell=one", "--to", "text"], "--from = 'smell': the fields of the run are text, image, speech"),
        (["--from", "one", "--to", "image"], "--from = 'one': must be FIELD=VALUE, each field once"),
        (["--from", "text=a", "--from", "text=b", "--to", "image"], "must be FIELD=VALUE, each field once"),
        (["--from", "text=one", "--to", "image"], "--out = None: image needs a file that ends with .png"),
        (
            ["--from", "text=one", "--to", "speech", "--out", "a.mp3"],
            "'a.mp3': speech needs a file that ends with .wav",
        ),
        (["--from", "text=one", "--to", "image", "--count", "0"], "--count = 0: must be in 1 … 4096"),
        (["--from", "image=none.png", "--to", "text"], "--from image = 'none.png': there is no such file"),
        (["--from", "speech=none.wav", "--to", "text"], "--from speech = 'none.wav': there is no such file"),
        (["--from", "text=@none.txt", "--to", "image", "--out", "a.png"], "--from text = 'none.txt': there is no"),
        (["--from", f"image={__file__}", "--to", "text"], "it can't be read"),
        (["--from", f"speech={__file__}", "--to", "text"], "it can't be read"),
        (["--from", "text=none.jsonl", "--to", "image", "--out", "a"], "'none.jsonl': there is no such file"),
        (["--from", "text=a much longer word", "--to", "image", "--out", "a.png"], "the modality 'text' allows 3 … 5"),
    ],
)
def test_a_sample_of_nothing_or_to_nowhere_is_refused(
    run: pathlib.Path, tmp_path, capsys, monkeypatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(["sample", run, *arguments], capsys)
    assert list(tmp_path.iterdir()) == []


def test_answers_are_ranked(run: pathlib.Path, signals: dict, capsys) -> None:
    capsys.readouterr()
    among = ["one", "seven", "nine"]
    assert main(["rank", str(run), "--from", f"image={signals['image']}", "--to", "text", "--among", *among]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert sorted(line[-1] for line in lines) == sorted(among)
    assert [line[2] for line in lines] == ["bits"] * 3
    shares, bits = ([float(line[column]) for line in lines] for column in (0, 1))
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert bits == sorted(bits)
    trained = load(run)
    with open(signals["image"], "rb") as stream:
        found = trained.rank({"image": trained.modalities["image"].read(stream)}, among)
    assert [one.answer for one in found] == [line[-1] for line in lines]
    assert [one.bits for one in found] == pytest.approx(bits, abs=0.01)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--from", "text=one", "--to", "smell", "--among", "one"], "the fields of the run are text, image, speech"),
        (["--from", "text=one", "--to", "text", "--among", "one"], "ConfigError: --to = 'text': the tasks are "),
        (["--from", "text=one", "--to", "image", "--among", "none.png"], "'none.png': there is no such file"),
        (["--from", "text", "--among", "one"], "must be FIELD=VALUE"),
    ],
)
def test_a_rank_of_nothing_is_refused(run: pathlib.Path, capsys, arguments: list[str], said: str) -> None:
    assert said in refused(["rank", run, *arguments], capsys)
