"""How fast is the loader, and does its start depend on the number of records?

    python experiments/bench/loader.py
    python experiments/bench/loader.py --json --rounds 9

Start: a process of its own opens a made source of 10^8 records and makes the first batch; imports count.
Its memory is the most that it had (VmHWM). Then the same with 10^5 records.

Speed: 20,000 records of text and of 64 items in 2^96 are prepared, as a folder of pictures would be. These run in turns
in one process, on one core: the loader (read, pack, encode, lay out), an epoch long; the bare encoder on documents in
memory, which writes tokens and their kinds; and a plain grain pipeline, which reads the same documents one by one from
an ArrayRecord file, encodes each, and packs them by first fit into as many bins as the loader has open sequences.
Figures are millions of tokens a second, without padding. Ratios are medians over neighbouring runs.

Processes: 10^5 records, on 1, 2 and 4 processes' shares; every record must come once an epoch.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from flax import serialization
from row import Row, report, spread

from omnijax.config import BatchConfig, Config, EvalConfig, Task
from omnijax.data.packing import OPEN_SEQUENCES
from omnijax.data.pipeline import Batches
from omnijax.data.prepare import prepare
from omnijax.modalities import Codes, Modality, Text
from omnijax.source import Record, Source
from omnijax.train import load_splits, make_batches
from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import encode

RECORDS, EPOCH = 20_000, 13_000  # sequences of an epoch, about
ITEMS = 64
START = "first batch of {:,} records, seconds"
MEMORY = "the most memory that it took, GiB"
LOADER, ENCODER, GRAIN = "the loader", "the bare encoder", "a plain grain pipeline"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made(Source):
    """Records that are made when they are asked for: a number in letters, and items that follow from it."""

    count: int = 10**8

    @property
    def fields(self) -> Mapping[str, Modality]:
        """Text, and items of twelve bytes."""
        return {"text": Text(least=1, most=20), "item": Codes("item", radices=(256,) * 12, least=1, most=ITEMS)}

    @property
    def splits(self) -> tuple[str, ...]:
        """One."""
        return ("train",)

    def present(self, split: str) -> Mapping[tuple[str, ...], int]:
        """Every record has both."""
        return {("text", "item"): self.count}

    def records(self, split: str) -> Sequence[Record]:
        """By random access."""
        return _Records(self.count)


class _Records(Sequence[Record]):
    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        if not 0 <= place < self._count:
            raise IndexError(place)
        random = np.random.Generator(np.random.PCG64(place))
        items = random.integers(0, 256, (ITEMS - place % 16, 12), np.uint32)
        return {"text": f"record {place}", "item": items}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored(Made):
    """The same, stored as items."""

    @property
    def stores(self) -> bool:
        """Nothing but the items."""
        return True


def config_of(source: Source, size: int = 8) -> Config:
    """Both directions, in sequences of 2,048 tokens."""
    tasks = (Task(("text", "item"), (1.0, 1.0)), Task(("item", "text"), (1.0, 1.0)))
    return Config(source, BatchConfig(tasks, size=size, sequence_length=2048), eval=EvalConfig(split="train"))


def start(count: int, pipe: Any, began: float) -> None:
    """Makes the first batch; sends the seconds since `began`, and the gibibytes of memory."""
    config = config_of(Made(count=count))
    batches = make_batches(config, load_splits(config))
    batches.check(1)
    batches[0]
    seconds = time.time() - began
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    most = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    pipe.send((seconds, most / 2**20))


def starts(count: int, rounds: int) -> list[tuple[float, float]]:
    """Seconds and gibibytes of some starts, each in a new process."""
    found, context = [], multiprocessing.get_context("spawn")
    for _ in range(rounds):
        ours, theirs = context.Pipe()
        process = context.Process(target=start, args=(count, theirs, time.time()))
        process.start()
        theirs.close()
        found.append(ours.recv())
        process.join()
    return found


def documents_of(batches: Batches, steps: Sequence[int]) -> list[Documents]:
    """What the loader encodes in some steps."""
    found = []
    for step in steps:
        rows = batches.rows(step)
        found.append(batches._documents(rows, np.array([len(row.documents) for row in rows]))[0])
    return found


def one_by_one(config: Config, directory: pathlib.Path) -> Callable[[], Iterator[Any]]:
    """The plain pipeline: its batches, as dictionaries of arrays."""
    path = directory / "records.array_record"
    corpus, writer = load_splits(config)[0].corpus(), ArrayRecordWriter(str(path), "group_size:1")
    for place, task in itertools.product(range(len(corpus)), config.batch.tasks):
        writer.write(serialization.msgpack_serialize(vars(corpus.documents([place], task.fields))))
    writer.close()
    vocabulary, length = config.vocabulary, config.batch.sequence_length

    def encoded(message: bytes) -> dict[str, np.ndarray]:
        documents = Documents(**serialization.msgpack_restore(message))
        tokens = encode(vocabulary, documents).tokens.array
        return {"tokens": tokens.astype(np.int32), "weights": np.ones(len(tokens), np.float32)}

    def batches() -> Iterator[Any]:
        source = grain.MapDataset.source(grain.sources.ArrayRecordDataSource([str(path)]))
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        examples = source.shuffle(seed=0).map(encoded).repeat().to_iter_dataset(options)
        packed = grain.experimental.FirstFitPackIterDataset(
            examples, length_struct={"tokens": length, "weights": length}, num_packing_bins=OPEN_SEQUENCES
        )
        return iter(packed.batch(config.batch.size))

    return batches


def speed(rounds: int, size: int, directory: pathlib.Path) -> list[Row]:
    """Millions of tokens a second of the three in batches of `size` sequences, and the loader's ratio to the others."""
    config = config_of(Stored(count=RECORDS, directory=str(directory / "data")), size)
    prepare(config)
    plain, times, steps = one_by_one(config, directory), collections.defaultdict[str, list[float]](list), EPOCH // size

    def loader() -> Callable[[], int]:
        batches = make_batches(config, load_splits(config))
        # Padding has no document.
        return lambda: sum(int((batches[step]["documents"] >= 0).sum()) for step in range(steps))

    def encoder() -> Callable[[], int]:
        batches = make_batches(config, load_splits(config))
        found = documents_of(batches, range(steps // 10))

        def work() -> int:
            encoded = [encode(config.vocabulary, one) for one in found]
            return sum(min(len(one.tokens.array), len(one.kinds)) for one in encoded)

        return work

    def pipeline() -> Callable[[], int]:
        return lambda: sum(int((batch["weights"] > 0).sum()) for batch in itertools.islice(plain(), steps // 10))

    for _ in range(rounds):
        for name, make in ((LOADER, loader), (ENCODER, encoder), (GRAIN, pipeline)):
            work = make()
            began = time.perf_counter()
            tokens = work()
            times[name].append(tokens / (time.perf_counter() - began) / 1e6)
    of_loader = np.array(times[LOADER])
    demands = {LOADER: "", ENCODER: "loader ≥ 0.6", GRAIN: "loader ≥ 1"}
    return [
        Row(name, float(np.median(found)), spread(found), float(np.median(of_loader / found)), demands[name])
        for name, found in times.items()
    ]


def every_record(count: int, processes: int) -> bool:
    """Whether each record comes once an epoch, in each form, over all processes."""
    config = config_of(Made(count=count))
    splits = load_splits(config)
    seen = np.zeros((2, count), np.int64)
    rows = np.array_split(np.arange(config.batch.size), processes)
    parts = [Batches(splits, config.batch, part) for part in rows]
    for step in itertools.count():
        done = False
        for part, numbers in zip(parts, rows, strict=True):
            taken = part.rows(step)
            for _, block, documents in (taken[number] for number in numbers):
                done |= block.epoch > 0
                if block.epoch == 0:
                    found = block.documents
                    np.add.at(seen, (found.task_of[documents], found.places[found.record_of[documents]]), 1)
        if done:
            return bool((seen == 1).all())
    raise AssertionError


def measure(options: argparse.Namespace) -> dict[str, list[Row]]:
    """The tables."""
    rows = []
    for count in (10**5, 10**8):
        seconds, memory = zip(*starts(count, min(3, options.rounds)), strict=True)
        rows.append(Row(START.format(count), float(np.median(seconds)), spread(seconds), 1.0, "≤ 10"))
        rows.append(Row(MEMORY, float(np.median(memory)), spread(memory), 1.0, "≤ 1"))
    tables = {"seconds and GiB; no ratio": rows}
    for size in (8, 32):
        title = f"millions of tokens a second, {size} sequences; ratio of the loader to each"
        with tempfile.TemporaryDirectory() as directory:
            tables[title] = speed(options.rounds, size, pathlib.Path(directory))
    for processes in (1, 2, 4):
        if not every_record(10**5, processes):
            raise SystemExit(f"{processes} processes: not every record comes once an epoch")
    return tables


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement")
    report(parser, measure)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
