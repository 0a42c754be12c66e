"""Several sources in one run: their shares, their epochs, what is stored, and runs that go on."""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import pytest

from omnijax.cli import main
from omnijax.config import BatchConfig, Config, EvalConfig, ModelConfig, OptimConfig, Task, TrainConfig, Writing
from omnijax.config.serial import from_dict, to_dict
from omnijax.data import blocks, store
from omnijax.data.manifest import MANIFEST, read_manifest, shaping
from omnijax.data.prepare import prepare
from omnijax.data.sources.mixture import Mixture
from omnijax.errors import ConfigError, DataError
from omnijax.modalities import Modality, Text
from omnijax.source import Record, Source
from omnijax.train import load_splits, make_batches, train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words(Source):
    """Texts of a length, stored as a file."""

    count: int = 50
    length: int = 5
    field: str = "word"

    @property
    def fields(self) -> Mapping[str, Modality]:
        """The word, and the number of its record."""
        return {self.field: Text(least=1, most=40), "number": Text(least=1, most=40)}

    @property
    def splits(self) -> tuple[str, ...]:
        """Two."""
        return ("train", "validation")

    def build(self, directory: pathlib.Path, progress: Any, beam: Any = None) -> None:
        """Writes the records."""
        letter = self.field[0]
        rows = [{self.field: letter * self.length, "number": f"{letter}{place}"} for place in range(self.count)]
        (directory / "rows.json").write_text(json.dumps(rows))

    def records(self, split: str) -> list[Record]:
        """All but ten in training."""
        rows = json.loads(pathlib.Path(self.directory, "rows.json").read_text())
        return rows[:10] if split == "validation" else rows[10:]


class Short(Words):
    """The same fields with another limit."""

    fields = {"word": Text(least=1, most=9), "number": Text(least=1, most=9)}


TASKS = (Task(("word", "number"), (1.0, 1.0)), Task(("term", "number"), (1.0, 1.0)))


def config_of(directory: pathlib.Path, unit: str = "tokens", **weights: float) -> Config:
    sources = {"a": Words(count=150), "b": Words(count=40, length=19), "c": Words(count=400, length=2, field="term")}
    data = Mixture(directory=str(directory), sources=sources, weights=weights, unit=unit)
    return Config(
        data,
        BatchConfig(TASKS, size=8, sequence_length=65),
        writing=Writing(base=16),
        model=ModelConfig(depth=1, width=32, heads=2),
        optim=OptimConfig(warmup_steps=2),
        train=TrainConfig(steps=12, checkpoint_every=4, log_every=2),
        eval=EvalConfig(examples=8),
    )


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "CHUNK_RECORDS", 7)
        patch.setattr(blocks, "BLOCK_RECORDS", 30)
        yield


@pytest.fixture(scope="module")
def directory(tmp_path_factory, small_blocks) -> pathlib.Path:
    found = tmp_path_factory.mktemp("mixture") / "data"
    prepare(config_of(found))
    return found


@pytest.mark.parametrize("unit", ["tokens", "records"])
@pytest.mark.parametrize("weights", [{}, {"a": 6.0, "b": 1.0, "c": 3.0}])
def test_shares_hold(directory: pathlib.Path, unit: str, weights: dict[str, float]) -> None:
    config = config_of(directory, unit, **weights)
    batches = make_batches(config, load_splits(config))
    taken = np.zeros(3)
    for step in range(1000):
        for source, block, documents in batches.rows(step):
            lengths = block.documents.lengths[documents]
            taken[source] += lengths.sum() if unit == "tokens" else len(lengths)
    wanted = np.array([weights.get(name, 1.0) for name in "abc"])
    np.testing.assert_allclose(taken / taken.sum(), wanted / wanted.sum(), rtol=0.01)
    assert [position.amount for position in batches.position(1000)] == taken.tolist()


@pytest.mark.parametrize("processes", [2, 4])
def test_every_record_of_every_source_as_often_as_it_should(directory: pathlib.Path, processes: int) -> None:
    """Stopped every few steps, and gone on with on this number of processes, and on one."""
    config = config_of(directory, a=2.0)
    splits, position, step = load_splits(config), None, 0
    seen: dict[tuple[int, int], collections.Counter] = collections.defaultdict(collections.Counter)
    whole = make_batches(config, splits)
    for session in range(30):
        shares = np.array_split(np.arange(8), processes if session % 2 else 1)
        parts = [make_batches(config, splits, share) for share in shares]
        for part in parts:
            part.begin(step, position or part.position(0))
        for _ in range(5):
            rows = parts[0].rows(step)
            made = [part[step] for part in parts]
            np.testing.assert_array_equal(np.concatenate([one["tokens"] for one in made]), whole[step]["tokens"])
            assert np.concatenate([one["source"] for one in made]).tolist() == [row.source for row in rows]
            for source, block, documents in rows:
                places = block.documents.places[block.documents.record_of[documents]]
                seen[source, block.epoch].update(places.tolist())
            step += 1
        position = json.loads(json.dumps(parts[0].position(step)))
    for source, (epoch, *_) in enumerate(position):
        assert epoch > 0
        for number in range(epoch):
            assert seen[source, number] == dict.fromkeys(range(len(splits[source])), 1)
    epochs = [position[0] for position in whole.position(step)]
    assert [int(epoch) for epoch in whole.epochs(step)] == epochs


def test_what_is_stored(directory: pathlib.Path) -> None:
    manifest = read_manifest(directory)
    assert set(manifest["items"]) == {"a", "b", "c"}
    assert manifest["items"]["b"]["train"] == {"records": 30, "present": {'["word", "number"]': 30}}
    assert {name.split("/")[0] for name in manifest["files"]} == {"a", "b", "c"}
    config = config_of(directory)
    assert config.data.records("validation")[0].keys() == {"word", "number"}
    first = [config.data.records("train")[place] for place in range(20)]
    assert {row["number"][0] + str(len(row.get("word", ""))) for row in first} == {"w5", "w19", "t0"}
    before = (directory / MANIFEST).read_bytes()
    prepare(config)
    assert (directory / MANIFEST).read_bytes() == before
    other = dataclasses.replace(config.data, sources={**config.data.sources, "b": Words(count=41, length=19)})
    with pytest.raises(DataError, match=r"sources\.b"):
        prepare(dataclasses.replace(config, data=other))
    assert shaping(config.data) == shaping(dataclasses.replace(config.data, weights={"a": 3.0}))


def test_a_build_that_was_killed_ends_with_the_same_files(
    directory: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, plain = [], Words.build

    def killed(self: Words, *arguments: Any) -> None:
        if len(built) == 2:
            raise KeyboardInterrupt
        built.append(self.directory)
        plain(self, *arguments)

    monkeypatch.setattr(Words, "build", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(config_of(tmp_path / "data"))
    monkeypatch.setattr(Words, "build", lambda self, *rest: (built.append(self.directory), plain(self, *rest))[1])
    prepare(config_of(tmp_path / "data"))
    assert [pathlib.Path(path).name for path in built] == ["a", "b", "c"]
    assert read_manifest(tmp_path / "data") == read_manifest(directory)


def test_a_run_that_is_stopped_goes_on_the_same(directory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    config = config_of(directory, a=2.0)
    whole = train(config, tmp_path / "whole")

    class After:
        """Asks to stop after some steps."""

        def begin(self) -> None: ...
        def after(self, step: int) -> bool:
            return step == 5

        def __enter__(self) -> After:
            return self

        def __exit__(self, *rest: object) -> None: ...

    assert train(config, tmp_path / "run", stop=After()).stopped  # type: ignore[arg-type]
    again = train(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, whole.state.params, again.state.params)
    lines = [
        [
            {name: value for name, value in json.loads(line).items() if "second" not in name and name != "check"}
            for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in ("whole", "run")
    ]
    assert lines[0] == lines[1]
    assert {f"loss/from {name}" for name in "abc"} <= lines[0][-1].keys()
    assert lines[0][-1]["epoch/b"] > lines[0][-1]["epoch/c"] > 0


def test_losses_by_source_add_up(directory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The mean of the losses of the sources, weighted by their targets, is that of the kinds."""
    config = config_of(directory)
    batch = make_batches(config, load_splits(config))[0]
    targets = [int((batch["weights"][batch["source"] == source] > 0).sum()) for source in range(3)]
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=1, log_every=1))
    train(config, tmp_path / "run")
    (line,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    by_source = [line[f"loss/from {name}"] for name in "abc" if f"loss/from {name}" in line]
    weighted = sum(loss * count for loss, count in zip(by_source, filter(None, targets), strict=True)) / sum(targets)
    assert weighted == pytest.approx(line["loss"], rel=1e-5)


def test_bits_by_source_are_those_of_its_own_records(
    directory: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Together they are the bits of all; those of one source, measured by itself, are the same."""
    config = config_of(directory)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=1))
    assert config.data.origins("validation") == [
        record["number"][0].replace("w", "ab"[len(record["word"]) > 5]) if "word" in record else "c"
        for record in config.data.records("validation")
    ]
    train(config, tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    bits = json.loads((tmp_path / "run" / "eval.json").read_text())["bits_per_item"]
    both = bits["word"]["sources"]
    assert both.keys() == {"a", "b"}
    assert bits["term"]["sources"].keys() == {"c"}
    assert bits["term"]["sources"]["c"]["renormalised"] == pytest.approx(bits["term"]["renormalised"], rel=1e-6)
    assert both["a"]["records"] + both["b"]["records"] == bits["word"]["records"]
    items = {"a": 5 * both["a"]["records"], "b": 19 * both["b"]["records"]}
    mean = sum(both[name]["renormalised"] * count for name, count in items.items()) / sum(items.values())
    assert mean == pytest.approx(bits["word"]["renormalised"], rel=1e-6)
    assert f"of b: {both['b']['renormalised']:.3f} ({both['b']['records']} records)" in told
    page = (tmp_path / "run" / "report.html").read_text()
    assert "… of b" in page


def test_it_is_the_same_when_it_is_read_back(directory: pathlib.Path) -> None:
    config = config_of(directory, a=2.0)
    assert to_dict(from_dict(to_dict(config))) == to_dict(config)


@pytest.mark.parametrize(
    ("knobs", "field"),
    [
        ({"sources": {}}, "data.sources"),
        ({"sources": {"a/b": Words()}}, "data.sources"),
        ({"weights": {"d": 1.0}}, "data.weights"),
        ({"weights": {"a": 0.0}}, "data.weights.a"),
        ({"directory": ""}, "data.directory"),
        ({"sources": {"a": Words(), "b": Short()}}, "data.sources.b.fields.word"),
    ],
)
def test_mixtures_that_can_not_be_are_refused(tmp_path: pathlib.Path, knobs: dict[str, Any], field: str) -> None:
    config = config_of(tmp_path)
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(config, data=dataclasses.replace(config.data, **knobs))
    assert caught.value.field.startswith(field)


def test_a_source_that_no_task_takes_is_refused(directory: pathlib.Path) -> None:
    config = config_of(directory)
    config = dataclasses.replace(config, batch=dataclasses.replace(config.batch, tasks=TASKS[:1]))
    with pytest.raises(DataError, match="no task takes"):
        make_batches(config, load_splits(config))
