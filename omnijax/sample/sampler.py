"""Samples the rest of documents, many documents side by side, under the grammar or without it.

Each document has a row. A token that the grammar leaves no choice for needs no forward pass of its own: the model reads
it together with the token before it. So rows get out of step, also where a wrong check digit sends one back. A row that
is done makes room for the next document. The tokens of a document depend on its own number and the key alone. The
model's memory grows with the rows, so that attention reads no more slots than there are tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, PRNGKeyArray

from omnijax.config import SampleConfig
from omnijax.errors import ConfigError
from omnijax.model.cache import slots
from omnijax.model.decoder import Decoder
from omnijax.sample.decode_loop import ChunkResult, LoopState, Programs, unstacked, unstacked_shardings
from omnijax.sample.row_buffers import RowWriter
from omnijax.step.sharding import mesh_of
from omnijax.vocab.grammar import Grammar, SegmentRule
from omnijax.vocab.vocabulary import END, PAD, Vocabulary

CHUNK = 32
"""Most steps before the host looks at the rows."""
BLOCKS = 8
"""Most sizes of a memory; a program is compiled for each size."""
PROMPT = 16
"""Prompts are padded to a multiple of this many tokens, so that few widths are compiled."""
REFILL = 4
"""One row in this many is refilled at a time."""


class Drawn(NamedTuple):
    """What was sampled.

    Attributes:
        tokens: that follow each prompt, padded behind the end.
        rejected: fragments of each document that were drawn again because of their check digit.
    """

    tokens: Int[np.ndarray, "n m"]
    rejected: Int[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class SegmentTarget:
    """A segment to be drawn. Hashable, so that each is compiled once.

    Attributes:
        name: of the control token that opens it.
        min_items: fewest items.
        max_items: most items.
        holds: kinds of its items.
        sample: how tokens are drawn.
        order: in which fragments are written.
    """

    name: str
    min_items: int
    max_items: int
    holds: Literal["any", "general", "fragments"]
    sample: SampleConfig = SampleConfig()
    order: Literal["raster", "any"] = "raster"


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Completes documents with one segment and their end.

    Attributes:
        model: whose parameters are given at each call.
        config: how tokens are drawn.
        writer: appends tokens to rows, by a grammar for the segment to come.
        most_forced: how many tokens that the grammar leaves no choice for are read in one pass with the token before
            them; 0 gives each token a pass of its own.
        block: slots that the memory grows by, at least, once it has twice as many.
    """

    model: Decoder
    config: SampleConfig
    writer: RowWriter
    most_forced: int
    block: int = 64

    @classmethod
    def of(cls, model: Decoder, vocabulary: Vocabulary, target: SegmentTarget, skip: bool = True) -> Sampler:
        """The sampler of one target.

        Args:
            model: with as many tokens as the vocabulary.
            vocabulary: of the documents.
            target: the segment to come.
            skip: read tokens that the grammar leaves no choice for together with the token before them.

        Raises:
            ConfigError: a temperature, top-k, top-p or number of retries is impossible.
            VocabularyError: the vocabulary can't write what the target asks for.
        """
        _check(target.sample, vocabulary)
        v, context = vocabulary, _context(vocabulary, target.name)
        end = () if v.end is None else (END,)
        rules = [SegmentRule(target.name, target.min_items, target.max_items, target.holds, end)]
        if target.order == "any":  # other segments are only read, and the grammar tracks no positions in them
            rules += [SegmentRule(name, 0, 0) for name in v.control if name not in (END, target.name)]
        grammar = Grammar(v, tuple(rules), (target.name,), target.order)
        retries = 0 if target.holds == "general" else target.sample.retries
        writer = RowWriter(grammar, most_tokens(v, target), retries, int(v.contexts.widths[context]))
        # Between two digits with a choice there are at most a check digit and the tokens of a position.
        places = v.position_places if v.position != "none" else 0
        most_forced = max(1, places + (v.check_digit and v.width == "fixed"))
        skip = skip and target.sample.grammar and model.reads_ahead
        return cls(model, target.sample, writer, most_forced if skip else 0)

    def __call__(
        self,
        params: Any,
        prompts_nt: Int[np.ndarray, "n t"],
        lengths_n: Int[np.ndarray, " n"],
        key: PRNGKeyArray,
        rows: int | None = None,
        progress: Callable[[float], None] | None = None,
        least_n: Int[np.ndarray, " n"] | None = None,
        most_n: Int[np.ndarray, " n"] | None = None,
    ) -> Drawn:
        """The tokens that follow each prompt.

        Bounds on the number of items may differ from document to document. They are arrays, so that one compiled
        program serves all documents.

        Args:
            params: of the model; if they are split over a mesh, rows and memory are split, too.
            prompts_nt: beginnings of documents up to the marker of the target's segment, padded on the right.
            lengths_n: tokens of each prompt, at least one.
            key: draws each token, together with the number of the document and of the token in it; not used at
                temperature 0.
            rows: how many documents are sampled side by side; all by default.
            progress: is called now and then with the share that is done, up to 1.
            least_n: fewest items of each segment to come; None, or -1 for one document, takes the target's bound.
            most_n: most items of each segment to come, in the same way; at most `max_items` of the target.

        Raises:
            ConfigError: bounds that no segment of the target can keep, or bounds without a grammar.
        """
        count, mesh = len(prompts_nt), mesh_of(params)
        width = -(-prompts_nt.shape[1] // PROMPT) * PROMPT
        tokens = np.pad(prompts_nt, ((0, 0), (0, width - prompts_nt.shape[1]))).astype(np.int32)
        bounds = None if least_n is None and most_n is None else self._bounds(count, least_n, most_n)
        prompts = _Prompts(tokens, np.asarray(lengths_n, np.int32), bounds)
        side = _divisible(min(rows or count, count), mesh)
        queue = _Queue(self._programs(mesh), self.block, prompts, key, side)
        return queue.run(unstacked(self.model, mesh, params), progress)

    def _bounds(
        self, count: int, least_n: Int[np.ndarray, " n"] | None, most_n: Int[np.ndarray, " n"] | None
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """The bounds of all documents, checked; -1 for the target's."""
        rule = self.writer.grammar.rules[0]
        least, most = (
            np.full(count, -1, np.int32) if bound is None else np.asarray(bound, np.int32)
            for bound in (least_n, most_n)
        )
        lowest, highest = np.where(least < 0, rule.least, least), np.where(most < 0, rule.most, most)
        wrong = np.flatnonzero((lowest > highest) | (highest > rule.most))
        if wrong.size:
            value = (int(lowest[wrong[0]]), int(highest[wrong[0]]))
            says = f"of document {wrong[0]}: the fewest and the most items must be in order and at most {rule.most}"
            raise ConfigError("least_n, most_n", value, says, "change them, or raise max_items of the target")
        if not self.config.grammar:
            raise ConfigError("sample.grammar", False, "the grammar keeps the bounds on items", "set it to True")
        return least, most

    def lower(self, params: Any, rows: int, prompt_tokens: int) -> jax.stages.Lowered:
        """The program that draws and reads a chunk of tokens, with a memory of full size, for `omnijax plan`.

        Args:
            params: abstract parameters with shardings over the mesh to plan for, from `abstract_state`.
            rows: documents side by side, a multiple of the number of devices along `data` and `fsdp`.
            prompt_tokens: length of the longest prompt.
        """
        mesh = jax.tree.leaves(params)[0].sharding.mesh
        programs = self._programs(mesh)
        width = -(-prompt_tokens // PROMPT) * PROMPT
        weights = jax.eval_shape(self.model.unstacked, params)
        prompts, lengths = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((rows, width), (rows,)))

        def begin(*given: Any) -> LoopState:
            return programs.begin(*given, jax.random.key(0), given[-1], width + self.writer.most_tokens)

        loop = jax.eval_shape(begin, weights, prompts, lengths)
        weights, loop = (
            jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)
            for tree, shardings in ((weights, unstacked_shardings(mesh, weights)), (loop, programs.shardings(loop)))
        )
        number = jax.ShapeDtypeStruct((), jnp.int32)
        return Programs.chunk.lower(programs, weights, loop, number, number)

    def _programs(self, mesh: Mesh | None) -> Programs:
        return Programs(self.model, self.config, self.writer, self.most_forced, mesh)


def most_tokens(vocabulary: Vocabulary, target: SegmentTarget) -> int:
    """Tokens of the longest segment of a target, with the end of the document and without the segment's marker."""
    context = _context(vocabulary, target.name)
    item = 1 if target.holds == "general" else vocabulary.fragment_tokens(context)
    return target.max_items * item + int(vocabulary.contexts.grouped[context]) + 1


def _context(vocabulary: Vocabulary, name: str) -> int:
    return int(vocabulary.contexts.of_control[vocabulary.token(name) - vocabulary.control_start])


class _Prompts(NamedTuple):
    """The documents to complete.

    Attributes:
        tokens: their prompts, padded on the right.
        lengths: tokens of each prompt.
        bounds: fewest and most items of each segment to come; None for those of the target.
    """

    tokens: Int[np.ndarray, "n t"]
    lengths: Int[np.ndarray, " n"]
    bounds: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]] | None


class _Queue:
    """The host's part of sampling: documents wait in a queue, and `side` documents are sampled side by side.

    Attributes:
        programs: that run on the device.
        block: slots that the memory grows by, at least.
        prompts: of all documents.
        key: draws the tokens.
        group: number of rows that begin together.
        next: number of the next document.
        numbers: number of the document in each row; -1 for a free row.
        needed: slots that each row needs for the next step.
        drawn: the finished documents.
    """

    def __init__(self, programs: Programs, block: int, prompts: _Prompts, key: PRNGKeyArray, side: int) -> None:
        self.programs, self.block, self.prompts, self.key = programs, block, prompts, key
        count = len(prompts.tokens)
        self.group = side if count <= side else _divisible(-(-side // REFILL), programs.mesh)
        self.next, self.numbers, self.needed = 0, np.full(side, -1), np.zeros(side, np.int32)
        self.drawn = Drawn(np.full((count, programs.writer.most_tokens), PAD, np.int32), np.zeros(count, np.int32))

    def run(self, params: Any, progress: Callable[[float], None] | None) -> Drawn:
        """Samples all documents."""
        loop, count = None, len(self.prompts.tokens)
        while self.next < count or (self.numbers >= 0).any():
            enough = min(self.group, count - self.next)
            while enough and (self.numbers < 0).sum() >= enough:
                loop = self._begin(params, loop, enough)
                enough = min(self.group, count - self.next)
            assert loop is not None
            room = self._room(int(self.needed[self.numbers >= 0].max()))
            loop = self.programs.grown(loop, room) if room > slots(loop.memory) else loop
            enough = enough or len(self.numbers) + 1
            loop, result = self.programs.chunk(params, loop, np.int32(CHUNK), np.int32(enough))
            share = self._collect(jax.device_get(result))
            if progress is not None:
                progress(share)
        return self.drawn

    def _begin(self, params: Any, loop: LoopState | None, count: int) -> LoopState:
        """Gives free rows to the next `count` documents. Copies fill the group up, and are dropped."""
        programs, rows = self.programs, np.flatnonzero(self.numbers < 0)[:count]
        numbers = np.resize(np.arange(self.next, self.next + count, dtype=np.int32), self.group)
        prompts, lengths, bounds = jax.tree.map(lambda array: array[numbers], self.prompts)
        self.next, self.numbers[rows] = self.next + count, numbers[:count]
        forced, most = programs.forced_behind_prompt, programs.writer.most_tokens
        self.needed[rows] = (lengths + np.minimum(forced + 1 + programs.most_forced, most))[:count]
        side, read = len(self.numbers), prompts.shape[1] + forced
        room = self._room(max(read, int(self.needed.max()))) if loop is None else slots(loop.memory)
        alone = self.group == side
        slots_here = room if alone else min(read, room)
        new = programs.begin(params, prompts, lengths, self.key, numbers, slots_here, bounds)
        if alone:
            return new
        loop = programs.idle(new, side, room) if loop is None else loop
        places = np.append(rows, np.full(self.group - count, side)).astype(np.int32)
        return programs.refilled(loop, places, new)

    def _room(self, needed: int) -> int:
        """Slots of a memory in which this many are needed, in whole blocks."""
        most = self.prompts.tokens.shape[1] + self.programs.writer.most_tokens
        block = self.block * -(-most // (self.block * BLOCKS))
        return most if most <= 2 * self.block else min(most, max(2 * self.block, -(-needed // block) * block))

    def _collect(self, result: ChunkResult) -> float:
        """Takes the finished documents, and gives the share of tokens that are done if all documents are longest."""
        here = self.numbers >= 0
        done = here & result.done
        self.drawn.tokens[self.numbers[done]] = result.tokens[done]
        self.drawn.rejected[self.numbers[done]] = result.rejected[done]
        self.numbers[done], self.needed = -1, np.array(result.needed)
        count, most = self.drawn.tokens.shape
        finished = self.next - (self.numbers >= 0).sum()
        return float(finished * most + result.written[here & ~done].sum()) / (count * most)


def _divisible(rows: int, mesh: Mesh | None) -> int:
    """`rows`, rounded up so that each device has the same number."""
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
        (checked, "needs writing.check_digit and writing.width = 'fixed', so that its place is known"),
        (config.temperature > 0, "needs sample.temperature > 0; at 0 the same digits would be drawn again"),
        (config.grammar, "needs sample.grammar, which says which check digit is right"),
    ):
        if config.retries and not needs:
            raise ConfigError("sample.retries", config.retries, rule, "set it to 0, or change that knob")
