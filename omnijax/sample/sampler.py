"""Draws the rest of documents: rows side by side over a KV cache, under the grammar or without it.

A token that the grammar leaves no choice for is written without a forward pass of its own: the model reads it together
with the token before it. Rows get out of step by that, and where a check digit sends one back. A row that is done gives
its place to the next document, and what a document gets follows from its own number and the key alone. The cache grows
as the rows do, so that attention reads no more slots than there are tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, PRNGKeyArray

from omnijax.config import SampleConfig, Target
from omnijax.errors import ConfigError
from omnijax.model.cache import slots
from omnijax.model.items import ItemTransformer
from omnijax.model.transformer import Transformer
from omnijax.sample.decode_loop import Loop, Seen, Steps, unstacked, unstacked_shardings
from omnijax.sample.row_buffers import Pen
from omnijax.step.sharding import mesh_of
from omnijax.vocab.grammar import Grammar, SegmentRule
from omnijax.vocab.vocabulary import END, PAD, Vocabulary

CHUNK = 32
"""Steps after which the host looks, at the latest."""
BLOCKS = 8
"""Sizes of a cache, at most: a program is compiled for each."""
PROMPT = 16
"""Prompts are padded to a multiple of so many tokens, so that few widths are compiled."""
REFILL = 4
"""A row in so many begins anew together with others."""


class Drawn(NamedTuple):
    """What was sampled.

    Attributes:
        tokens: that follow each prompt, padded behind the end.
        rejected: how many fragments of each row were drawn again because of their check digit.
    """

    tokens: Int[np.ndarray, "n m"]
    rejected: Int[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Completes documents with one segment and their end.

    Attributes:
        model: whose parameters are given at each call.
        config: how tokens are drawn.
        pen: writes them, by a grammar with what is asked of the segment to come.
        ahead: tokens that the grammar leaves no choice for which are read in one pass with the token before them, at
            most; 0 gives each a pass of its own.
        block: slots that the cache grows by, at least, from twice as many on.
    """

    model: Transformer
    config: SampleConfig
    pen: Pen
    ahead: int
    block: int = 64

    @classmethod
    def of(cls, model: Transformer, vocabulary: Vocabulary, target: Target, skip: bool = True) -> Sampler:
        """The sampler of one modality.

        Args:
            model: whose tokens are those of the vocabulary.
            vocabulary: of the documents.
            target: the segment to come.
            skip: give tokens that the grammar leaves no choice for no pass of their own.

        Raises:
            ConfigError: a temperature, top-k, top-p or number of retries that can't be.
            VocabularyError: the vocabulary can't write what the target asks for.
        """
        _check(target.sample, vocabulary)
        v, context = vocabulary, _context(vocabulary, target.name)
        end = () if v.end is None else (END,)
        rules = [
            SegmentRule(target.name, target.min_items, target.max_items, "fragments" if context else "general", end)
        ]
        if target.order == "any":  # what other segments hold is read, and needs no bits for its positions
            rules += [SegmentRule(name, 0, 0) for name in v.control if name not in (END, target.name)]
        grammar = Grammar(v, tuple(rules), (target.name,), target.order)
        retries = target.sample.retries if context else 0
        pen = Pen(grammar, most_tokens(v, target), retries, int(v.contexts.widths[context]))
        # A check digit and the tokens of a position are what is forced between two digits that aren't.
        places = v.position_places if v.position != "none" else 0
        # Inside of an item a model that steps once an item has no pass to spare.
        skip = skip and target.sample.grammar and not isinstance(model, ItemTransformer)
        ahead = max(1, places + (v.check_digit and v.width == "fixed")) if skip else 0
        return cls(model, target.sample, pen, ahead)

    def __call__(
        self,
        params: Any,
        prompts_nt: Int[np.ndarray, "n t"],
        lengths_n: Int[np.ndarray, " n"],
        key: PRNGKeyArray,
        rows: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Drawn:
        """The tokens that follow each prompt.

        Args:
            params: of the model; where they are split over a mesh, the rows and the cache are, too.
            prompts_nt: beginnings of documents, the marker of the wanted segment included, padded on the right.
            lengths_n: tokens of each prompt, at least one.
            key: draws the tokens, each by the number of its document and its own in it; not used at temperature 0.
            rows: documents side by side; all of them by default.
            progress: told now and then the share that is done, up to 1.
        """
        count, mesh = len(prompts_nt), mesh_of(params)
        width = -(-prompts_nt.shape[1] // PROMPT) * PROMPT
        prompts = np.pad(prompts_nt, ((0, 0), (0, width - prompts_nt.shape[1]))).astype(np.int32)
        side = _divisible(min(rows or count, count), mesh)
        queue = _Queue(self._steps(mesh), self.block, prompts, np.asarray(lengths_n, np.int32), key, side)
        return queue.run(unstacked(self.model, mesh, params), progress)

    def lower(self, params: Any, rows: int, prompt_tokens: int) -> jax.stages.Lowered:
        """The program that draws and reads a chunk of tokens, at the cache's full size, for a compiler to plan with.

        Args:
            params: abstract ones, with shardings over the mesh to plan for: those of `abstract_state`.
            rows: documents side by side, a multiple of the devices along `data` and `fsdp`.
            prompt_tokens: of the longest prompt.
        """
        mesh = jax.tree.leaves(params)[0].sharding.mesh
        steps = self._steps(mesh)
        width = -(-prompt_tokens // PROMPT) * PROMPT
        weights = jax.eval_shape(self.model.unstacked, params)
        prompts, lengths = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((rows, width), (rows,)))

        def begin(*given: Any) -> Loop:
            return steps.begin(*given, jax.random.key(0), given[-1], width + self.pen.most)

        loop = jax.eval_shape(begin, weights, prompts, lengths)
        weights, loop = (
            jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)
            for tree, shardings in ((weights, unstacked_shardings(mesh, weights)), (loop, steps.shardings(loop)))
        )
        number = jax.ShapeDtypeStruct((), jnp.int32)
        return Steps.chunk.lower(steps, weights, loop, number, number)

    def _steps(self, mesh: Mesh | None) -> Steps:
        return Steps(self.model, self.config, self.pen, self.ahead, mesh)


def most_tokens(vocabulary: Vocabulary, target: Target) -> int:
    """Tokens that the longest segment of a target takes, the end included, its marker not."""
    context, item = _context(vocabulary, target.name), 1
    if context:
        places = vocabulary.position_places if vocabulary.position != "none" else 0
        item = int(vocabulary.contexts.widths[context]) + vocabulary.check_digit + places
    return target.max_items * item + (vocabulary.layout == "grouped") + 1


def _context(vocabulary: Vocabulary, name: str) -> int:
    return int(vocabulary.contexts.of_control[vocabulary.token(name) - vocabulary.control_start])


class _Queue:
    """Documents, a number of them side by side: what the host has to do for it.

    Attributes:
        steps: the programs.
        block: slots that the cache grows by, at least.
        prompts_nt: of the documents.
        lengths_n: of the prompts.
        key: draws the tokens.
        group: rows that begin together.
        next: document to begin.
        numbers: of the document in each row, -1 for none.
        needed: slots that the next step of each row takes.
        drawn: what is finished.
    """

    def __init__(
        self,
        steps: Steps,
        block: int,
        prompts_nt: Int[np.ndarray, "n t"],
        lengths_n: Int[np.ndarray, " n"],
        key: PRNGKeyArray,
        side: int,
    ) -> None:
        self.steps, self.block, self.prompts_nt, self.lengths_n, self.key = steps, block, prompts_nt, lengths_n, key
        count = len(prompts_nt)
        self.group = side if count <= side else _divisible(-(-side // REFILL), steps.mesh)
        self.next, self.numbers, self.needed = 0, np.full(side, -1), np.zeros(side, np.int32)
        self.drawn = Drawn(np.full((count, steps.pen.most), PAD, np.int32), np.zeros(count, np.int32))

    def run(self, params: Any, progress: Callable[[float], None] | None) -> Drawn:
        """Draws all documents."""
        loop, count = None, len(self.prompts_nt)
        while self.next < count or (self.numbers >= 0).any():
            enough = min(self.group, count - self.next)
            while enough and (self.numbers < 0).sum() >= enough:
                loop = self._begin(params, loop, enough)
                enough = min(self.group, count - self.next)
            assert loop is not None
            room = self._room(int(self.needed[self.numbers >= 0].max()))
            loop = self.steps.grown(loop, room) if room > slots(loop.cache) else loop
            enough = enough or len(self.numbers) + 1
            loop, seen = self.steps.chunk(params, loop, np.int32(CHUNK), np.int32(enough))
            share = self._collect(jax.device_get(seen))
            if progress is not None:
                progress(share)
        return self.drawn

    def _begin(self, params: Any, loop: Loop | None, count: int) -> Loop:
        """So many documents take rows that are free; others, which only fill the program up, don't."""
        steps, rows = self.steps, np.flatnonzero(self.numbers < 0)[:count]
        numbers = np.resize(np.arange(self.next, self.next + count, dtype=np.int32), self.group)
        prompts, lengths = self.prompts_nt[numbers], self.lengths_n[numbers]
        self.next, self.numbers[rows] = self.next + count, numbers[:count]
        self.needed[rows] = np.minimum(lengths + steps.first + 1 + steps.ahead, lengths + steps.pen.most)[:count]
        side, read = len(self.numbers), prompts.shape[1] + steps.first
        room = self._room(max(read, int(self.needed.max()))) if loop is None else slots(loop.cache)
        alone = self.group == side
        new = steps.begin(params, prompts, lengths, self.key, numbers, room if alone else min(read, room))
        if alone:
            return new
        loop = steps.resting(new, side, room) if loop is None else loop
        places = np.append(rows, np.full(self.group - count, side)).astype(np.int32)
        return steps.replaced(loop, places, new)

    def _room(self, needed: int) -> int:
        """Slots of a cache in which so many are needed: as many blocks as hold them."""
        most = self.prompts_nt.shape[1] + self.steps.pen.most
        block = self.block * -(-most // (self.block * BLOCKS))
        return most if most <= 2 * self.block else min(most, max(2 * self.block, -(-needed // block) * block))

    def _collect(self, seen: Seen) -> float:
        """Takes what is finished; the share of the tokens, had every document as many as it may."""
        here = self.numbers >= 0
        done = here & seen.done
        self.drawn.tokens[self.numbers[done]] = seen.tokens[done]
        self.drawn.rejected[self.numbers[done]] = seen.rejected[done]
        self.numbers[done], self.needed = -1, np.array(seen.needed)
        count, most = self.drawn.tokens.shape
        finished = self.next - (self.numbers >= 0).sum()
        return float(finished * most + seen.written[here & ~done].sum()) / (count * most)


def _divisible(rows: int, mesh: Mesh | None) -> int:
    """So many rows or a few more, as many on each device."""
    devices = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    return -(-rows // devices) * devices


def _check(config: SampleConfig, vocabulary: Vocabulary) -> None:
    for field, holds, rule in (
        ("temperature", config.temperature >= 0, "must be ≥ 0; 0 takes the likeliest token"),
        ("top_k", config.top_k >= 0, "must be ≥ 0; 0 draws from all"),
        ("top_p", 0 < config.top_p <= 1, "must be in (0, 1]"),
        ("retries", config.retries >= 0, "must be ≥ 0; 0 draws nothing again"),
    ):
        if not holds:
            raise ConfigError(f"sample.{field}", getattr(config, field), rule, "choose another value")
    checked = vocabulary.check_digit and vocabulary.width == "fixed"
    for needs, rule in (
        (checked, "needs vocabulary.check_digit, and fixed width, where its place is known"),
        (config.temperature > 0, "at temperature 0 the same digits would come again"),
        (config.grammar, "the grammar says which check digit is right"),
    ):
        if config.retries and not needs:
            raise ConfigError("sample.retries", config.retries, rule, "set it to 0, or mend that")
