"""For tests of this package, and of experiments built on it: small runs, and data that need no data set."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from omnijax.config import BatchConfig, Config, Task
from omnijax.data.corpus import Corpus
from omnijax.vocab.vocabulary import END, Space, Vocabulary

SPEECH_CODES = 32


def shrink(config: Config, directory: Path) -> Config:
    """An experiment's configuration, the same in kind and small in size: it trains for seconds.

    Documents are those of the experiment, of a data set of 97 training records that is built in about four seconds, or
    of as many keys.
    Axes of a mesh may have 1, 2 or (all but `tensor`) 4 or 8 devices.

    Args:
        config: of a shipped experiment.
        directory: where the small data set is, or is to be built; any number of tests can share it.
    """
    speech = dataclasses.replace(config.data.speech, codes=SPEECH_CODES, griffin_lim_iterations=2)
    lookup = dataclasses.replace(config.data.lookup, keys=min(97, config.data.lookup.keys), copies=1)
    spaces = tuple(
        dataclasses.replace(space, size=SPEECH_CODES) if space.name == "speech" else space
        for space in config.vocabulary.spaces
    )
    return dataclasses.replace(
        config,
        vocabulary=dataclasses.replace(config.vocabulary, spaces=spaces),
        data=dataclasses.replace(
            config.data, directory=str(directory), utterances=1, heldout_images=1700, speech=speech, lookup=lookup
        ),
        batch=dataclasses.replace(config.batch, size=8, prefetch=2),
        model=dataclasses.replace(
            config.model, depth=2, width=32, heads=4, kv_heads=2, head_size=8, mlp_width=64, unroll=1
        ),
        optim=dataclasses.replace(config.optim, warmup_steps=5),
        train=dataclasses.replace(config.train, steps=40, log_every=1, checkpoint_every=15),
        eval=dataclasses.replace(config.eval, examples=12, batch_size=12, show=4),
    )


def small_vocabulary() -> Vocabulary:
    """A vocabulary of 27 primary tokens: a space of three digits, one of two, and text of 8 general tokens."""
    return Vocabulary(
        general=8,
        positions=8,
        digits=5,
        base=5,
        spaces=(Space("image", 100), Space("speech", 20)),
        control=("text", "image", "speech", "eos"),
        position="before",
        width="fixed",
    )


def small_config(config: Config, directory: Path) -> Config:
    """`shrink`, and for the documents of `random_corpus(small_vocabulary(), …)` of up to 7 items a segment."""
    batch = BatchConfig(mixed_tasks(), size=8, sequence_length=73)
    small = shrink(config, directory)
    evaluated = dataclasses.replace(small.eval, completions=())
    return dataclasses.replace(small, vocabulary=small_vocabulary(), batch=batch, eval=evaluated)


def mixed_tasks() -> tuple[Task, ...]:
    """Tasks over text, image and speech, with weights of every sort, one of them twice in an epoch."""
    return (
        Task(("image", "text"), weights=(1.0, 5.0)),
        Task(("text", "speech"), weights=(0.0, 1.0), repeats=2),
        Task(("speech", "image", "text"), weights=(0.5, 1.0, 1.0)),
    )


def random_corpus(vocabulary: Vocabulary, records: int, most_items: int, seed: int = 0) -> Corpus:
    """Records of random fragments: for each marker of the vocabulary a modality, 1 to `most_items` items long."""
    random = np.random.default_rng(seed)
    sizes = {name: vocabulary.general for name in vocabulary.control if name != END}
    sizes |= {space.name: space.size for space in vocabulary.spaces if space.name in sizes}
    return Corpus(
        vocabulary,
        {
            name: [random.integers(0, size, random.integers(1, most_items + 1)) for _ in range(records)]
            for name, size in sizes.items()
        },
    )


def check_golden(path: Path, found: Any, refresh_when: str, relative_tolerance: float = 0.0) -> None:
    """Holds a value against the one that a golden file has; writes the file when `UPDATE_GOLDENS=1` is set.

    Args:
        path: of a JSON file.
        found: what JSON can hold.
        refresh_when: when it is right to refresh this golden.
        relative_tolerance: how far numbers may differ.

    Raises:
        AssertionError: they differ; says where, when it is right to refresh the file, and how.
    """
    found = json.loads(json.dumps(found))
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        return
    differ = ["there is no such file"]
    if path.exists():
        differ = list(_differences(json.loads(path.read_text()), found, "", relative_tolerance))
    if differ:
        shown = "\n  ".join([*differ[:10], *(["…"] if len(differ) > 10 else [])])
        raise AssertionError(
            f"{path} says otherwise:\n  {shown}\nIt is right to refresh this golden when {refresh_when}; otherwise the "
            "code is wrong. To refresh: run this test with UPDATE_GOLDENS=1, and read the diff before you commit it."
        )


def _differences(golden: Any, found: Any, path: str, tolerance: float) -> Iterator[str]:
    if isinstance(golden, dict) and isinstance(found, dict):
        for key in sorted(golden.keys() | found.keys()):
            if key in golden and key in found:
                yield from _differences(golden[key], found[key], f"{path}/{key}", tolerance)
            else:
                yield f"{path}/{key} is only {'in the golden' if key in golden else 'here'}"
    elif isinstance(golden, list) and isinstance(found, list) and len(golden) == len(found):
        for number, pair in enumerate(zip(golden, found, strict=True)):
            yield from _differences(*pair, f"{path}/{number}", tolerance)
    else:
        numbers = type(golden) is type(found) is float
        if not (numbers and math.isclose(golden, found, rel_tol=tolerance)) and golden != found:
            yield f"{path} is {golden!r} in the golden and {found!r} here"
