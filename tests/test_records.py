"""Records of every shape: several signals in a field, fields that are missing, interleaved sequences."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import random_data

from omnijax import testing
from omnijax.config import BatchConfig, Config, Task
from omnijax.data.blocks import Blocks
from omnijax.data.corpus import encode_records, read_split
from omnijax.data.pipeline import Batches
from omnijax.data.sources.memory import Arrays
from omnijax.data.splits import Shares
from omnijax.errors import ConfigError, DataError
from omnijax.evaluate import load
from omnijax.modalities import Codes, Picture, Text
from omnijax.train import train
from omnijax.vocab.encode import encode

TEXT, CODES = Text(most=20), Codes("codes", radices=(3, 5), most=8)
PHOTO = Picture("photo", height=4, width=5, channels=3, variable=True)
FIELDS = {"text": TEXT, "title": TEXT, "photo": PHOTO, "second": PHOTO, "codes": CODES}
TASKS = (
    Task(("photo", "text"), weights=(0.25, 4.0)),
    Task(("codes", "title", "second"), weights=(1.0, 0.0, 2.0), repeats=2),
    Task(("sequence",), weights=(3.0,)),
    Task(("photo",), weights=(1.0,), random_order=(1.0,)),
)


def rows(count: int = 40) -> list[dict[str, Any]]:
    """Records with none, one or several signals in each field."""
    random = np.random.default_rng(0)

    def photo() -> np.ndarray:
        return random.integers(0, 256, (*random.integers(1, [5, 6]), 3), np.uint8)

    def codes() -> np.ndarray:
        return random.integers(0, 3, (random.integers(1, 9), 2))

    found = []
    for k in range(count):
        row: dict[str, Any] = {"text": [f"{k}-{n}" for n in range(k % 4)], "codes": codes() if k % 3 else None}
        row["photo"] = photo() if k % 5 else [photo(), photo()]
        if k % 2:
            row["second"] = photo()
        row["title"] = "" if k % 7 == 0 else f"title {k}"
        if k % 4 == 1:
            row["sequence"] = [
                ("text", f"a{k}"),
                ("photo", photo()),
                ("text", "b"),
                ("codes", codes()),
                ("photo", photo()),
            ]
        found.append(row)
    return found


ROWS = rows()


@pytest.fixture(scope="module")
def config() -> Config:
    source = Arrays(FIELDS, rows=ROWS, shares=Shares(0.2, 0.0))
    return Config(source, BatchConfig(TASKS, size=4, sequence_length=256))


@pytest.fixture(scope="module")
def batches(config: Config) -> Batches:
    corpus = encode_records(config, ROWS, BatchConfig(TASKS).views, FIELDS)
    return random_data.batches_of(corpus, config.batch)


@pytest.fixture(scope="module")
def taken_by(config: Config) -> list[np.ndarray]:
    """For each task the places of the records that it takes."""
    corpus = encode_records(config, ROWS, BatchConfig(TASKS).views, FIELDS)
    return [corpus.having(task.fields) for task in TASKS]


def signals(row: dict[str, Any], field: str) -> list[tuple[str, Any]]:
    """The signals of a field, each with its field: the plain way."""
    value = row.get(field)
    if field == "sequence":
        return list(value or [])
    several = value if isinstance(value, list) else [] if value is None else [value]
    return [(field, one) for one in several]


def has(row: dict[str, Any], task: Task) -> bool:
    return all(signals(row, field) for field in task.fields)


def test_a_task_takes_the_records_that_have_all_of_its_fields(batches: Batches, taken_by: list[np.ndarray]) -> None:
    for task, taken in zip(TASKS, taken_by, strict=True):
        assert taken.tolist() == [place for place, row in enumerate(ROWS) if has(row, task)]
        assert len(taken) > 0
    assert [len(taken) for taken in taken_by] == [30, 13, 10, 40]
    said = {line.split(": ")[0]: line.split(": ")[1] for line in batches.incomplete()}
    whole = {
        "->".join(task.fields): f"{n} of 40 records have all of its fields" for task, n in zip(TASKS, (30, 13, 10))
    }
    assert said == whole  # and nothing about the last task, which takes all


def test_segments_are_those_of_the_signals_in_order(config: Config, taken_by: list[np.ndarray]) -> None:
    """Each signal is a segment, or two where it has a header; its marker names the field."""
    vocabulary = config.vocabulary
    corpus = encode_records(config, ROWS, BatchConfig(TASKS).views, FIELDS)
    for task, taken in zip(TASKS, taken_by, strict=True):
        documents = corpus.documents(taken, task.fields).to_list()
        for place, document in zip(taken, documents, strict=True):
            expected = []
            for field, signal in [pair for name in task.fields for pair in signals(ROWS[place], name)]:
                items = FIELDS[field].encode([signal])
                expected.append((field, int((items.part <= 0).sum())))
                if field in ("photo", "second"):
                    expected.append(("photo.patch", int((items.part == 1).sum())))
            found = [(vocabulary.control[segment.marker], len(segment.ids)) for segment in document]
            assert found == expected


def test_lengths_are_those_of_the_encoded_documents(config: Config, taken_by: list[np.ndarray]) -> None:
    corpus = encode_records(config, ROWS, BatchConfig(TASKS).views, FIELDS)
    lengths = []
    for task, taken in zip(TASKS, taken_by, strict=True):
        one = encode(config.vocabulary, corpus.documents(taken, task.fields)).document_tokens
        lengths += [one] * task.repeats
    found = Blocks(random_data.Held(corpus), config.batch).documents(0, 0)
    np.testing.assert_array_equal(found.lengths, np.concatenate(lengths))


def test_every_segment_of_a_field_has_its_weight(config: Config, batches: Batches) -> None:
    """Over some steps: each target weighs what its field weighs in the task of its document."""
    vocabulary = config.vocabulary
    corpus = encode_records(config, ROWS, BatchConfig(TASKS).views, FIELDS)
    seen = set()
    for step in range(6):
        batch = batches[step]
        for row, (_, documents) in enumerate(random_data.contents(batches, step)):
            for number, (task_number, record) in enumerate(documents):
                task = TASKS[task_number]
                expected: list[float] = []
                for name, weight in zip(task.fields, task.weights, strict=True):
                    alone = encode(vocabulary, corpus.documents([record], [name]))
                    expected += [weight] * (int(alone.document_tokens[0]) - 1)
                expected.append(task.weights[-1])
                where = np.flatnonzero(batch["documents"][row] == number)
                found = batch["weights"][row, where]
                count = min(len(found), len(expected) - 1)
                np.testing.assert_array_equal(found[:count], np.float32(expected[1 : count + 1]))
                seen.add(task_number)
    assert seen == {0, 1, 2, 3}


def test_an_epoch_has_each_record_of_a_task_as_often_as_it_repeats(
    batches: Batches, taken_by: list[np.ndarray]
) -> None:
    total = sum(len(taken) * task.repeats for task, taken in zip(TASKS, taken_by, strict=True))
    first = []
    for step in range(100):
        first += [pair for epoch, row in random_data.contents(batches, step) for pair in row if epoch == 0]
    assert len(first) == total
    for number, (task, taken) in enumerate(zip(TASKS, taken_by, strict=True)):
        assert sorted(record for one, record in first if one == number) == sorted(taken.tolist() * task.repeats)


def test_random_orders_keep_headers_in_front(config: Config, batches: Batches) -> None:
    vocabulary = config.vocabulary
    header, patches = vocabulary.token("photo"), vocabulary.token("photo.patch")
    for step in range(4):
        for row in batches[step]["tokens"]:
            openers = row[np.isin(row, [header, patches, vocabulary.token("second")])]
            assert (openers[1:][openers[:-1] == header] == patches).all()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"sequence": ["text"]}, "a list of \\(field, signal\\)"),
        ({"sequence": [("foto", 1)]}, "the fields are text, title, photo, second, codes"),
        ({"sequence": [("text", 7)]}, "record 1: text"),
        ({"photo": [PHOTO]}, "record 1: photo"),
        ({"codes": np.zeros((9, 2), int)}, "codes"),
    ],
)
def test_wrong_records_are_named(config: Config, wrong: dict[str, Any], message: str) -> None:
    (name,) = wrong
    with pytest.raises(DataError, match=message) as caught:
        encode_records(config, [ROWS[1], wrong], [name], FIELDS)
    assert caught.value.field.startswith("record 1: ")


def test_a_task_that_no_record_can_do_is_refused(config: Config) -> None:
    with_none = dataclasses.replace(config, data=Arrays(FIELDS, rows=[{"text": str(k)} for k in range(40)]))
    with pytest.raises(DataError, match="has all of these fields") as caught:
        random_data.batches_of(read_split(with_none, "train", BatchConfig(TASKS).views).corpus(), with_none.batch)
    assert caught.value.field == "batch.tasks.0"


def test_a_sequence_stands_alone(config: Config) -> None:
    batch = dataclasses.replace(config.batch, tasks=(Task(("sequence", "text"), (1.0, 1.0)),))
    with pytest.raises(ConfigError, match="stands alone"):
        dataclasses.replace(config, batch=batch)


@pytest.mark.slow
def test_a_run_on_such_records(config: Config, tmp_path: pathlib.Path) -> None:
    small = testing.shrink(config, tmp_path / "data")
    small = dataclasses.replace(
        small,
        batch=dataclasses.replace(small.batch, tasks=(TASKS[0], *TASKS[2:])),  # those whose scores are compared
        train=dataclasses.replace(small.train, steps=12, checkpoint_every=12),
    )
    assert train(small, tmp_path / "run").step == 12
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    run = load(tmp_path / "run", config=small)
    whole = run.score(ROWS[1])  # interleaved, and with all fields
    assert set(whole) >= {"sequence", "photo", "text|photo"}
    assert whole["sequence"].bits > whole["photo"].bits > 0
    assert run.score({"sequence": ROWS[1]["sequence"]}) == {"sequence": whole["sequence"]}
    encoded = [run.encode(field, [signal])[0] for field, signal in ROWS[1]["sequence"]]
    assert whole["sequence"].items == sum(len(one.part) for one in encoded)
