"""Contracts of every experiment file there is: found by looking, so that a new one is held to them at once."""

import ast
import functools
import pathlib
import pickle
import re

import jax
import numpy as np
import pytest
from goldens import check_golden

from omnijax import testing
from omnijax.config import Config, from_dict, to_dict
from omnijax.config.experiment_file import run_file
from omnijax.errors import ConfigError
from omnijax.experiment import explain_knobs, load_experiment, override
from omnijax.model.transformer import Transformer
from omnijax.step.sharding import make_mesh
from omnijax.step.state import abstract_batch, abstract_state, make_step

ROOM = pathlib.Path(__file__).parents[1] / "experiments"
GOLDENS = pathlib.Path(__file__).parent / "golden" / "experiments"
CARD = ("Question", "Command", "Hardware", "Time", r"(Expect\w*|Result)")


def defines(path: pathlib.Path, name: str) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in body)


EXPERIMENTS = [path for path in sorted(ROOM.rglob("*.py")) if defines(path, "get_config")]
each = pytest.mark.parametrize("path", EXPERIMENTS, ids=[path.relative_to(ROOM).as_posix() for path in EXPERIMENTS])


def test_the_shipped_experiment_is_found() -> None:
    assert ROOM / "digits.py" in EXPERIMENTS


@each
def test_the_docstring_is_a_run_card(path: pathlib.Path) -> None:
    card = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    missing = [entry for entry in CARD if not re.search(rf"^{entry} +\S", card, re.MULTILINE)]
    assert not missing, f"{path}: its docstring is its run card and lacks the entries {', '.join(missing)}"
    assert path.relative_to(ROOM.parent).as_posix() in card, "the command must name this file"


@each
def test_the_configuration_is_that_of_the_golden(path: pathlib.Path) -> None:
    config = load_experiment(path)
    golden = GOLDENS / path.relative_to(ROOM).with_suffix(".json")
    when = "the experiment, or a default of omnijax/config/, was meant to change, and the CHANGELOG says so"
    check_golden(golden, {"vocabulary": to_dict(config.vocabulary), **to_dict(config)}, when)
    assert from_dict(to_dict(config), functools.partial(run_file, path)) == config


def test_no_golden_is_left_over() -> None:
    goldens = {path.relative_to(GOLDENS).with_suffix(".py") for path in GOLDENS.rglob("*.json")}
    assert goldens == {path.relative_to(ROOM) for path in EXPERIMENTS}


@each
def test_one_step_lowers_on_eight_devices(path: pathlib.Path) -> None:
    config = load_experiment(path)
    model, mesh = Transformer(config.model, config.vocabulary.size), make_mesh(config.mesh)
    assert mesh.size == 8
    state = abstract_state(config, model, mesh)
    lowered = make_step(config, model, mesh).lower(state, abstract_batch(config, mesh))
    after, metrics = lowered.out_info
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert metrics.parts.loss.shape == ()


@each
def test_every_knob_can_be_set_from_the_command_line(path: pathlib.Path) -> None:
    config = load_experiment(path)
    said = explain_knobs(config)
    for knob in (
        "--model.depth",
        "--optim.learning_rate",
        "--mesh.fsdp",
        "--data.seed",
        "--writing.width",
        "--batch.tasks.0.repeats",
    ):
        assert knob in said
    sampled = ["--eval.targets.0.sample.grammar", "False"] if config.eval.targets else []
    changed = override(
        config,
        [
            *("--model.depth", str(config.model.depth + 1), "--model.unroll=1", "--optim.learning_rate", "0.5"),
            *("--model.remat", "full", "--batch.tasks.0.repeats", "3", *sampled),
        ],
    )
    assert (changed.model.depth, changed.optim.learning_rate) == (config.model.depth + 1, 0.5)
    assert (changed.model.remat, changed.batch.tasks[0].repeats) == ("full", 3)
    assert [target.sample.grammar for target in changed.eval.targets[:1]] == [False] * len(changed.eval.targets[:1])
    assert changed.batch.tasks[1:] == config.batch.tasks[1:]
    assert override(config, []) is config
    assert override(config, ["--train.steps", str(config.train.steps)]) == config


def digits() -> Config:
    return load_experiment(ROOM / "digits.py")


def test_knobs_of_modalities_and_of_targets_can_be_set() -> None:
    changed = override(digits(), ["--data.speech.codes", "32", "--eval.targets.0.sample.grammar", "False"])
    assert changed.vocabulary.spaces[-1].size == changed.data.speech.codes == 32
    assert changed.eval.targets[0].sample.grammar is False


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--model.dept", "6"], "perhaps you mean model.depth"),
        (["--learning_rate", "1"], "perhaps you mean optim.learning_rate"),
        (["--batch.tasks.9.repeats", "1"], "perhaps you mean batch.tasks.3.repeats"),
        (["--zzz", "1"], "see --knobs"),
        (["--model.depth", "six"], "model.depth = 'six': invalid literal for int() with base 10: 'six'"),
        (["--model.depth=6.5", "--batch.size=8"], "model.depth = '6.5': invalid literal"),
        (["--model.remat", "sometimes"], "Expected one of ('none', 'dots', 'attention', 'full')"),
        (["--model.compute_dtype", "bf16"], "Expected one of ('float32', 'bfloat16')"),
        (["--optim.learning_rate", "−1e-3"], "could not convert string to float: '−1e-3'"),
        (["--model.depth"], "Missing value for argument '--model.depth'"),
        (["6"], "Unrecognized options: 6"),
        (["--help"], "there is no knob of this name"),
        (["--model.depth", "x" * 5000], "model.depth = 'xxx"),
    ],
)
def test_a_wrong_override_is_refused_with_what_is_wrong_about_it(arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(digits(), arguments)
    assert said in str(caught.value)
    assert arguments[0].lstrip("-").split(".")[0] in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "field, value",
    [
        ("batch.size", 0),
        ("batch.sequence_length", 1),
        ("model.depth", 0),
        ("model.dropout", 1.0),
        ("optim.accumulate", 0),
        ("train.steps", 0),
        ("train.keep_checkpoints", 0),
        ("eval.batch_size", 0),
    ],
)
def test_a_value_out_of_its_bounds_is_refused_by_the_name_of_the_knob(field: str, value: float) -> None:
    with pytest.raises(ConfigError) as caught:
        override(digits(), [f"--{field}", str(value)])
    assert (caught.value.field, caught.value.value) == (field, value)


@pytest.mark.parametrize(
    "source, rule",
    [
        (None, "no such file"),
        ("x = 1\n", r"get_config\(\) must return a Config"),
        ("def get_config():\n    return {}\n", r"get_config\(\) must return a Config"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(tmp_path, source: str | None, rule: str) -> None:
    path = tmp_path / "experiment.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(ConfigError, match=rule) as caught:
        load_experiment(path)
    assert caught.value.field == "experiment"


def test_a_saved_configuration_of_another_version_is_refused_by_the_name_of_the_knob() -> None:
    parts = to_dict(digits())
    parts["model"]["wings"] = 2
    with pytest.raises(ConfigError, match="no such knob in this version") as caught:
        from_dict(parts)
    assert caught.value.field == "config.model.wings"
    del parts["model"]["wings"], parts["optim"]["beta1"]
    with pytest.raises(ConfigError, match="missing") as caught:
        from_dict(parts)
    assert caught.value.field == "config.optim.beta1"


def test_the_small_forms_keep_what_the_experiment_trains_on(tmp_path) -> None:
    config = digits()
    small = testing.shrink(config, tmp_path)
    assert small.batch.tasks == config.batch.tasks
    assert [space.name for space in small.vocabulary.spaces] == [space.name for space in config.vocabulary.spaces]
    assert np.prod([small.model.width, small.model.depth]) < 100


def test_files_of_one_name_have_modules_of_their_own(tmp_path: pathlib.Path) -> None:
    modules = []
    for folder in ("first", "second"):
        path = tmp_path / folder / "experiment.py"
        path.parent.mkdir()
        path.write_text("class Data:\n    pass\n")
        modules.append(run_file(path))
    for module in modules:  # children that read files get an object of it
        assert pickle.dumps(module.Data())
