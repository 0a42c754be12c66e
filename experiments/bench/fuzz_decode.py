"""Ten million streams that no encoder wrote go through the jitted decoder: random, half-valid and mutated ones.

    python experiments/bench/fuzz_decode.py --streams 10000000

Uses all vocabularies of the tests (`tests/reference.py`). No stream may fail. The fields of every stream must be
consistent, and a sample of 100,000 streams is compared with the slow reference in every field. Prints the counts by
vocabulary and by error code. The exit status is 1 if a stream fails. Takes about five minutes on 2 CPU cores; `python
experiments/prove.py fuzz_decode` does it in parts.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys

import numpy as np
import rich.console
import rich.progress
import rich.table
from numpy.typing import NDArray
from parts import add_part, pick

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests"))  # where the slow reference lives
import reference

from omnijax.vocab.decode import Error, Kind, Reading, decode
from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.vocabulary import Vocabulary

TOKENS = 48
"""More than 32, so that words of marks (`omnijax/vocab/marks.py`) end inside a stream."""
ROWS = 16384


def valid_streams(v: Vocabulary, rows: int, seed: int) -> NDArray[np.int32]:
    """Random documents, encoded by the reference and padded."""
    streams = np.zeros((rows, TOKENS), np.int32)
    for row, document in zip(streams, reference.random_documents(v, rows, TOKENS, seed), strict=True):
        tokens = reference.encode(v, document)
        row[: len(tokens)] = tokens
    return streams


def mutated(v: Vocabulary, valid: NDArray[np.int32], rows: int, source: np.random.Generator) -> NDArray[np.int32]:
    """Half-valid streams: two halves joined or shifted, tokens replaced, ends cut off."""
    columns = np.arange(TOKENS)
    first, second = (valid[source.integers(0, len(valid), rows)] for _ in range(2))
    cut = source.integers(0, TOKENS, (rows, 1))
    joined = source.random((rows, 1)) < 0.3
    streams = np.where(joined & (columns >= cut), second, first)
    shift = np.where(source.random((rows, 1)) < 0.3, source.integers(-2, 3, (rows, 1)), 0)
    moved = np.clip(columns + np.where(columns < cut, 0, shift), 0, TOKENS - 1)
    streams = np.take_along_axis(streams, moved, axis=1)
    replaced = source.random((rows, TOKENS), np.float32) < source.choice([0, 0, 0.03, 0.1], (rows, 1))
    streams[replaced] = random_tokens(v, int(replaced.sum()), source)
    ends = np.where(source.random((rows, 1)) < 0.3, source.integers(0, TOKENS + 1, (rows, 1)), TOKENS)
    return np.where(columns < ends, streams, 0).astype(np.int32)


def random_tokens(v: Vocabulary, count: int, source: np.random.Generator) -> NDArray[np.int32]:
    """Random tokens, some outside the vocabulary. Tokens at the edges of each kind are more frequent."""
    edges = [0, 1, v.position_start, v.digit_start, v.digit_start + v.check_base, v.aos, v.control_start, v.size]
    least, most = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    few = np.array([least, most, *edges, *(edge - 1 for edge in edges), *(edge + 1 for edge in edges)])
    anywhere = source.integers(-1, v.size + 1, count)
    return np.where(source.random(count) < 0.3, few[source.integers(0, few.size, count)], anywhere).astype(np.int32)


def make_streams(v: Vocabulary, valid: NDArray[np.int32], rows: int, source: np.random.Generator) -> NDArray[np.int32]:
    """Three quarters mutated streams, an eighth of random tokens, and an eighth of tokens of fragments."""
    anything = random_tokens(v, rows // 8 * TOKENS, source).reshape(-1, TOKENS)
    parts = source.integers(v.position_start, min(v.aos, v.digit_start + 6), (rows // 8, TOKENS))
    rest = mutated(v, valid, rows - 2 * (rows // 8), source)
    return np.concatenate([rest, anything, parts]).astype(np.int32)


def secondary_ids(v: Vocabulary, reading: Reading) -> NDArray[np.object_]:
    """The field `id` of a reading as Python integers, with the high limbs."""
    ids = np.asarray(reading.id)
    if v.secondary_size <= 2**31:
        return ids.astype(object)
    limbs = [ids.view(np.uint32), *map(np.asarray, reading.high)]
    wide = sum((limb.astype(object) << 32 * place for place, limb in enumerate(limbs)), np.zeros(ids.shape, object))
    return np.where(np.asarray(reading.kind) == Kind.FRAGMENT, wide, ids)


def inconsistent(v: Vocabulary, streams: NDArray[np.int32], reading: Reading) -> NDArray[np.bool_]:
    """Marks streams whose fields contradict each other."""
    kind, error, ids, position, segment, length = (np.asarray(field) for field in reading[:6])
    fragment = kind == Kind.FRAGMENT
    wrong = (kind < 0) | (kind > max(Kind)) | (error < 0) | (error > max(Error)) | ((kind == Kind.ERROR) != (error > 0))
    wrong |= (position < 0) | (position > TOKENS) | (~fragment & (position > 0)) | (length < 0) | (length > TOKENS)
    wrong |= (fragment & (v.position != "none")) & (position == 0)
    wrong |= (length > 0) != (fragment | (kind == Kind.GENERAL))
    control = (streams >= v.control_start) & (streams < v.size)
    wrong |= segment != np.cumsum(control, axis=1)
    if v.secondary_size <= 2**31:
        wrong |= fragment & ((ids < 0) | (ids >= v.secondary_size))
    return wrong.any(axis=1)


def disagreeing(v: Vocabulary, streams: NDArray[np.int32], reading: Reading, count: int) -> int:
    """Number of the first streams that the reference reads differently in any field."""
    fields = [np.asarray(field)[:count] for field in reading[:6]]
    fields[2] = secondary_ids(
        v, Reading(*(field[:count] for field in reading[:6]), tuple(h[:count] for h in reading.high))
    )
    found = np.stack([field.astype(object) for field in fields], axis=-1).tolist()
    wrong = 0
    for stream, rows in zip(streams[:count].tolist(), found, strict=True):
        wrong += [list(map(int, row)) for row in reference.read(v, stream)] != rows
    return wrong


def fuzz(
    v: Vocabulary, streams: int, check: int, seed: int, rows: int = ROWS, valid: int = 512
) -> tuple[collections.Counter[str], int, int]:
    """Counts of errors, failed streams, and streams compared with the reference. `valid` streams are mutated."""
    source, counts, failed, compared = np.random.default_rng(seed), collections.Counter[str](), 0, 0
    written = valid_streams(v, valid, seed)
    batches = -(-streams // rows)
    for batch in range(batches):
        tokens = make_streams(v, written, rows, source)[source.permutation(rows)]
        reading = decode(v, PrimaryIds(tokens))
        failed += int(inconsistent(v, tokens, reading).sum())
        part = check * (batch + 1) // batches - check * batch // batches
        failed += disagreeing(v, tokens, reading, part)
        compared += part
        numbers = np.bincount(np.asarray(reading.error).ravel(), minlength=max(Error) + 1)
        counts.update({error.name: int(numbers[error]) for error in Error})
        counts["streams"] += rows
    return counts, failed, compared


def main() -> int:
    """Runs and prints counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=10_000_000)
    parser.add_argument("--check", type=int, default=100_000, help="streams that the slow reference reads too")
    parser.add_argument("--seed", type=int, default=0)
    add_part(parser)
    arguments = parser.parse_args()
    console, total, failed, compared = rich.console.Console(), collections.Counter[str](), 0, 0
    share, check = (-(-number // len(reference.VOCABULARIES)) for number in (arguments.streams, arguments.check))
    chosen = pick(reference.VOCABULARIES.items(), arguments.part)
    for name, v in rich.progress.track(chosen, "vocabularies", console=console):
        counts, wrong, read = fuzz(v, share, check, arguments.seed)
        console.print(f"{name}: {counts['streams']:,} streams, {wrong} failed", highlight=False)
        total, failed, compared = total + counts, failed + wrong, compared + read
    table = rich.table.Table("read", "tokens")
    for error in Error:
        table.add_row("no error" if error == Error.NONE else error.name, f"{total[error.name]:,}")
    console.print(table)
    console.print(f"{total['streams']:,} streams, {compared:,} of them read by the reference too, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
