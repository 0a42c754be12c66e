"""Lossless coding of the signals of one field: an arithmetic coder stands where sampling draws.

Coding and decoding run the same programs on the same shapes, token by token, so that both see the same probabilities,
bit for bit. The coder is that of constriction (Bamler, arXiv:2201.01741).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.progress
from etils import epy
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from omnijax.config import SampleConfig
from omnijax.errors import DataError
from omnijax.modalities.base import Items
from omnijax.sample.decode_loop import LoopState, Programs, unstacked
from omnijax.sample.generate import Generator
from omnijax.sample.sampler import PROMPT, Sampler, SegmentTarget
from omnijax.step.sharding import divisible, mesh_of
from omnijax.vocab.vocabulary import PAD

with epy.lazy_imports():  # an extra
    import constriction

WORD = np.dtype("<u4")
"""The coder writes words of 32 bits."""

Choose = Callable[[str, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""The next token of some documents: from the marker of the segment, int[n] numbers of the documents, int[n] tokens that
they have in the segment, and float64[n, tokens] probabilities, to int32[n]."""


class Asked(NamedTuple):
    """What is chosen next.

    Attributes:
        ready: rows whose next token is chosen; the others are done, or the model reads.
        done: the row is complete.
        length: number of tokens behind the prompt.
        probabilities: of each token, 0 for those that the grammar forbids.
    """

    ready: Bool[Array, " b"]
    done: Bool[Array, " b"]
    length: Int[Array, " b"]
    probabilities: Float[Array, "b v"]


@dataclasses.dataclass(frozen=True, eq=False)
class Coding(Generator):
    """A generator in which `choose` gives each token, instead of a random draw."""

    choose: Choose = lambda *_: np.zeros(0, np.int32)

    def _completed(
        self,
        target: SegmentTarget,
        prompts_nt: Int[np.ndarray, "n t"],
        lengths_n: Int[np.ndarray, " n"],
        key: PRNGKeyArray,
        bounds_n2: Int[np.ndarray, "n 2"] | None,
    ) -> Int[np.ndarray, "n m"]:
        mesh, count = mesh_of(self.params), len(prompts_nt)
        programs = dataclasses.replace(Sampler.of(self.model, self.config.vocabulary, target), mesh=mesh)
        side = divisible(min(count, self.config.eval.batch_size), mesh)
        width = -(-prompts_nt.shape[1] // PROMPT) * PROMPT
        tokens_nt = np.pad(prompts_nt, ((0, 0), (0, width - prompts_nt.shape[1]))).astype(np.int32)
        params, drawn = unstacked(self.model, mesh, self.params), list[np.ndarray]()
        bars = self.progress or rich.progress.Progress(disable=True)
        bar = bars.add_task(f"  {target.name}", total=count * programs.most_tokens)
        for start in range(0, count, side):
            rows = np.minimum(np.arange(start, start + side, dtype=np.int32), count - 1)  # the last ones are copies
            bounds = None if bounds_n2 is None else bounds_n2[rows].astype(np.int32)
            slots = width + programs.forced_behind_prompt + programs.most_tokens
            loop = programs.begin(params, tokens_nt[rows], lengths_n[rows].astype(np.int32), key, rows, slots, bounds)
            asked = jax.device_get(_asked(programs, loop))
            while not asked.done.all():
                ready = np.flatnonzero(asked.ready[: count - start])
                chosen = np.zeros(side, np.int32)
                if ready.size:
                    told = (asked.length[ready], asked.probabilities[ready].astype(np.float64))
                    chosen[ready] = self.choose(target.name, rows[ready], *told)
                    chosen[count - start :] = chosen[count - start - 1] if count - start < side else 0
                loop, asked = _advance(programs, params, loop, chosen)
                asked = jax.device_get(asked)
                written = np.where(asked.done, programs.most_tokens, asked.length)[: count - start].sum()
                bars.update(bar, completed=start * programs.most_tokens + int(written))
            drawn.append(np.asarray(loop.rows.tokens)[: count - start, : programs.most_tokens])
        bars.remove_task(bar)
        return np.concatenate(drawn)


def compressed(generator: Generator, field: str, items: Sequence[Items]) -> bytes:
    """The signals of a field in as few bytes as the model can: `restored` gives them back.

    Args:
        generator: of the run.
        field: of the signals, which some task predicts from nothing.
        items: of each signal.

    Raises:
        DataError: the grammar doesn't accept a signal.
    """
    v, encoder = generator.config.vocabulary, constriction.stream.queue.RangeEncoder()
    end = PAD if v.end is None else v.end
    segments = dict[str, list[np.ndarray]]()
    for row in generator.prompts({field: items}) if items else ():
        starts = np.flatnonzero(row >= v.control_start)
        for marker, segment in zip(row[starts].tolist(), np.split(row, starts)[1:], strict=True):
            segments.setdefault(v.control[marker - v.control_start], []).append(np.append(segment[1:], end))

    def choose(marker: str, documents: np.ndarray, lengths: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        pairs = zip(documents, lengths, strict=True)
        chosen = np.array([segments[marker][document][length] for document, length in pairs], np.int32)
        if not (wrong := probabilities[np.arange(len(chosen)), chosen] <= 0).any():
            encoder.encode(chosen, _family(), probabilities)
            return chosen
        rule = "the grammar of the run doesn't accept it: its modalities say how many items a field has"
        raise DataError(f"{field} signal", int(documents[wrong.argmax()]), rule, "give a signal within its limits")

    _run(generator, field, len(items), choose)
    return encoder.get_compressed().astype(WORD).tobytes()


def restored(generator: Generator, field: str, count: int, payload: bytes) -> list[Items]:
    """The items of the `count` signals in a payload of `compressed`.

    Raises a `DataError` if it isn't one that these parameters made here.
    """
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, WORD).astype(np.uint32))

    def choose(marker: str, documents: np.ndarray, lengths: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        return np.asarray(decoder.decode(_family(), probabilities), np.int32)

    return _run(generator, field, count, choose)


def _family() -> Any:
    return constriction.stream.model.Categorical(perfect=False)


def _run(generator: Generator, field: str, count: int, choose: Choose) -> list[Items]:
    given = {one.name: getattr(generator, one.name) for one in dataclasses.fields(Generator)}
    found = Coding(**given, choose=choose).generate({}, field, jax.random.key(0), SampleConfig(), count)
    if not found.decodable.all():
        rule = "the payload must be one that this run wrote, on a machine that computes the same floats"
        raise DataError(f"{field} signal", int(np.argmin(found.decodable)), rule, "decompress it where it was made")
    return found.items


@functools.partial(jax.jit, static_argnums=0)
def _asked(programs: Programs, loop: LoopState) -> Asked:
    rows = loop.rows
    assert rows.legal is not None
    p_bv = jax.nn.softmax(jnp.where(rows.legal, loop.logits.astype(jnp.float32), -jnp.inf))
    p_bv = jnp.where(rows.legal, jnp.maximum(p_bv, jnp.finfo(jnp.float32).tiny), 0)  # what is legal can be coded
    return Asked(~rows.done & (loop.read == rows.length), rows.done, rows.length, p_bv)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _advance(programs: Programs, params: Any, loop: LoopState, token_b: Int[Array, " b"]) -> tuple[LoopState, Asked]:
    loop = programs.told(params, loop, token_b)
    return loop, _asked(programs, loop)
