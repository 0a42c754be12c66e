"""How fast is the encoder? The whole public function, against a hand-tuned kernel for one case and a text tokenizer.

The input is a million fixed-width items of a space of 2^18 fragments, base 64, position after, in typed segments.
`encode` checks them, lays them out, and writes markers, `aos`, digits, positions and `eos`. The kernel only shifts and
masks ids into int32[items, 4], in cache-sized chunks, with given positions. Runs take turns, and a ratio is the median
over neighbouring runs, so that other load on the machine affects both.

    python experiments/bench/vocab_encode.py

For the command of all parts, demands and results see `vocab.py`.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from row import Row, spread

from omnijax.vocab.documents import Documents
from omnijax.vocab.encode import encode
from omnijax.vocab.numbers import from_digits
from omnijax.vocab.vocabulary import Space, Vocabulary

ITEMS, SEGMENT, CHUNK = 1_000_000, 250, 2**15
UNIT = "million tokens a second; ratio of the time for a token"
KERNELS = ("temporaries", "scratch", "planes")


def kernel(ids: np.ndarray, positions: np.ndarray, variant: str) -> np.ndarray:
    """int32[items, 4]: three digits in base 64 and a position for ids below 2^18, with shifts and masks only."""
    out = np.empty((ids.size, 4), np.int32)
    digit, place = np.int32(300), np.int32(100)
    scratch, planes = np.empty((2, CHUNK), np.int32), np.empty((4, CHUNK), np.int32)
    for start in range(0, ids.size, CHUNK):
        part, where = ids[start : start + CHUNK], out[start : start + CHUNK]
        if variant == "temporaries":
            number = part.astype(np.int32)
            np.add(number >> 12, digit, out=where[:, 0])
            np.add((number >> 6) & 63, digit, out=where[:, 1])
            np.add(number & 63, digit, out=where[:, 2])
            np.add(positions[start : start + CHUNK], place, out=where[:, 3])
            continue
        number, rest = scratch[:, : part.size]
        columns = where.T if variant == "scratch" else planes[:, : part.size]
        number[:] = part
        np.add(np.right_shift(number, 12, out=rest), digit, out=columns[0])
        np.bitwise_and(np.right_shift(number, 6, out=rest), 63, out=rest)
        np.add(rest, digit, out=columns[1])
        np.add(np.bitwise_and(number, 63, out=rest), digit, out=columns[2])
        np.add(positions[start : start + CHUNK], place, out=columns[3])
        if variant == "planes":
            where[:] = columns.T
    return out


def vocabulary(size: int, base: int) -> Vocabulary:
    """A vocabulary with one space, typed segments, fixed width, position after."""
    return Vocabulary(
        positions=1024,
        digits=base,
        base=base,
        spaces=(Space("image", size),),
        control=("image", "eos"),
        width="fixed",
    )


def documents(ids: np.ndarray, segment_items: np.ndarray) -> Documents:
    """Documents with one typed segment each."""
    ones = np.ones(segment_items.size, np.int64)
    return Documents(np.zeros(len(ids), np.int32), ids, segment_items, 0 * ones, ones)


def ragged(items: int, source: np.random.Generator) -> np.ndarray:
    """Different sizes of segments with the same number of items in all."""
    sizes = source.integers(1, 2 * SEGMENT, 4 * items // SEGMENT)
    sizes = sizes[np.cumsum(sizes) < items]
    return np.append(sizes, items - sizes.sum())


def tokenizer_run(documents_of_text: int) -> Callable[[], int] | None:
    """Hugging Face's byte-level BPE, trained here, over a batch of text; None if it isn't installed."""
    if importlib.util.find_spec("tokenizers") is None:
        return None
    import tokenizers

    source = np.random.default_rng(1)
    words = ["".join(map(chr, source.integers(97, 123, source.integers(2, 9)))) for _ in range(2000)]
    texts = [" ".join(source.choice(words, 200)) for _ in range(documents_of_text)]
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts[:100], vocab_size=1000, show_progress=False)
    return lambda: sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts))


def alternate(runs: dict[str, Callable[[], int]], repeats: int) -> dict[str, np.ndarray]:
    """Seconds a token, float64[repeats], of functions that give numbers of tokens, run in turns after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            tokens = run()
            if repeat:
                seconds[name].append((time.perf_counter() - start) / tokens)
    return {name: np.array(values) for name, values in seconds.items()}


def row(name: str, seconds: np.ndarray, ratio: np.ndarray, demand: str) -> Row:
    """The row for these runs."""
    return Row(name, 1e-6 / float(np.median(seconds)), spread(seconds), float(np.median(ratio)), demand)


def rows(items: int = ITEMS, repeats: int = 15) -> list[Row]:
    """All rows of the encoder's part."""
    source = np.random.default_rng(0)
    ids = source.integers(0, 2**18, items)
    even = np.diff(np.append(np.arange(0, items, SEGMENT), items))
    positions = (np.arange(items) % SEGMENT + 1).astype(np.int32)
    patches = source.integers(0, 256, (items // 4, 12), np.uint8)

    def run(size: int, base: int, numbers: np.ndarray, sizes: np.ndarray) -> Callable[[], int]:
        v, given = vocabulary(size, base), documents(numbers, sizes)
        return lambda: encode(v, given).tokens.array.size

    def run_patches(base: int) -> Callable[[], int]:
        v, sizes = vocabulary(2**96, base), even[: len(patches) // SEGMENT]
        raw = patches[: sizes.sum()]
        return lambda: encode(v, documents(from_digits(raw, (256,) * raw.shape[1]), sizes)).tokens.array.size

    runs: dict[str, Callable[[], int]] = {
        f"kernel, {variant}": lambda variant=variant: kernel(ids, positions, variant).size for variant in KERNELS
    }
    runs["base 64"] = run(2**18, 64, ids, even)
    runs["base 64, ragged segments"] = run(2**18, 64, ids, ragged(items, source))
    others = {f"base {base}": run(2**18, base, ids, even) for base in (2, 9, 10, 17, 256, 1000, 4096)}
    wide = {f"2×2 RGB patches, base {base}": run_patches(base) for base in (64, 10, 256, 1000)}
    tokenizer = tokenizer_run(500)
    text = {"Hugging Face tokenizers, encode_batch": tokenizer} if tokenizer else {}
    found = alternate(runs | others | wide | text, repeats)

    best = min(KERNELS, key=lambda variant: statistics.median(found[f"kernel, {variant}"]))
    reference, ours = found[f"kernel, {best}"], found["base 64"]
    table = [row(f"kernel, {best} (the reference)", reference, reference / reference, "")]
    for name in ("base 64", "base 64, ragged segments"):
        table.append(row(name, found[name], found[name] / reference, "≤ 3 × the kernel"))
    table += [row(name, found[name], found[name] / ours, "≤ 3 × base 64") for name in others]
    table += [row(name, found[name], found[name] / ours, "≤ 4 × base 64") for name in wide]
    table += [row(name, found[name], found[name] / ours, "≥ 100 × base 64") for name in text]
    return table


if __name__ == "__main__":
    for line in rows():
        print(json.dumps(line._asdict(), ensure_ascii=False))
