"""Samples the rest of documents, many documents side by side, under the grammar or without it.

Each document has a row. A token that the grammar leaves no choice for needs no forward pass of its own: the model reads
it together with the token before it. So rows get out of step. A row that is done makes room for the next document. The
tokens of a document depend on its own number and the key alone. The model's memory grows with the rows, so that
attention reads no more slots than there are tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PRNGKeyArray

from omnijax.config import SampleConfig
from omnijax.errors import ConfigError
from omnijax.model.cache import slots
from omnijax.model.transformer import Transformer
from omnijax.sample.decode_loop import ChunkResult, LoopState, Programs, unstacked, unstacked_shardings
from omnijax.step.sharding import divisible, mesh_of
from omnijax.step.state import abstract
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


@dataclasses.dataclass(frozen=True)
class SegmentTarget:
    """A segment to be drawn. Hashable, so that each is compiled once.

    Attributes:
        name: of the control token that opens it.
        holds: kinds of its items.
        order: in which fragments are written.
    """

    name: str
    min_items: int
    max_items: int
    holds: Literal["any", "general", "fragments"]
    sample: SampleConfig = SampleConfig()
    order: Literal["raster", "any"] = "raster"


@dataclasses.dataclass(frozen=True)
class Sampler(Programs):
    """Completes documents with one segment and their end.

    Attributes:
        block: slots that the memory grows by, at least, once it has twice as many.
    """

    block: int = 64

    @classmethod
    def of(cls, model: Transformer, vocabulary: Vocabulary, target: SegmentTarget, skip: bool = True) -> Sampler:
        """The sampler of one target.

        Args:
            model: with as many tokens as the vocabulary.
            vocabulary: of the documents.
            target: the segment to come.
            skip: read tokens that the grammar leaves no choice for together with the token before them.

        Raises:
            ConfigError: a temperature, top-k or top-p is impossible.
            VocabularyError: the vocabulary can't write what the target asks for.
        """
        target.sample.check("sample")
        v = vocabulary
        end = () if v.end is None else (END,)
        rules = [SegmentRule(target.name, target.min_items, target.max_items, target.holds, end)]
        if target.order == "any":  # other segments are only read, and the grammar tracks no positions in them
            rules += [SegmentRule(name, 0, 0) for name in v.control if name not in (END, target.name)]
        grammar = Grammar(v, tuple(rules), (target.name,), target.order)
        # Between two digits with a choice there are at most a check digit and the tokens of a position.
        places = v.position_places if v.position != "none" else 0
        most_forced = max(1, places + (v.check_digit and v.width == "fixed"))
        skip = skip and target.sample.grammar and model.reads_ahead
        return cls(model, target.sample, grammar, most_tokens(v, target), most_forced if skip else 0)

    def __call__(
        self,
        params: Any,
        prompts_nt: Int[np.ndarray, "n t"],
        lengths_n: Int[np.ndarray, " n"],
        key: PRNGKeyArray,
        rows: int | None = None,
        progress: Callable[[float], None] | None = None,
        bounds_n2: Int[np.ndarray, "n 2"] | None = None,
    ) -> Int[np.ndarray, "n m"]:
        """The tokens that follow each prompt, padded behind the end.

        Args:
            params: of the model; if they are split over a mesh, rows and memory are split, too.
            prompts_nt: beginnings of documents up to the marker of the target's segment, padded on the right.
            lengths_n: tokens of each prompt, at least one.
            key: draws each token, with the numbers of the document and of the token in it; unused at temperature 0.
            rows: how many documents are sampled side by side; all by default.
            progress: is called now and then with the share that is done, up to 1.
            bounds_n2: fewest and most items of each segment to come, at most `max_items` of the target; None, or -1 for
                one document, takes the target's bound. One compiled program serves all bounds.

        Raises:
            ConfigError: bounds that no segment of the target can keep, or bounds without a grammar.
        """
        count, mesh = len(prompts_nt), mesh_of(params)
        width = -(-prompts_nt.shape[1] // PROMPT) * PROMPT
        tokens = np.pad(prompts_nt, ((0, 0), (0, width - prompts_nt.shape[1]))).astype(np.int32)
        if bounds_n2 is not None:
            self._check_bounds(bounds_n2)
            bounds_n2 = bounds_n2.astype(np.int32)
        prompts = (tokens, np.asarray(lengths_n, np.int32), bounds_n2)
        side = divisible(min(rows or count, count), mesh)
        queue = _Queue(dataclasses.replace(self, mesh=mesh), prompts, key, side)
        return queue.run(unstacked(self.model, mesh, params), progress)

    def _check_bounds(self, bounds_n2: Int[np.ndarray, "n 2"]) -> None:
        rule = self.grammar.rules[0]
        least, most = np.where(bounds_n2 < 0, (rule.least, rule.most), bounds_n2).T
        wrong = (least > most) | (most > rule.most)
        if wrong.any():
            place = int(np.argmax(wrong))
            says = f"of document {place}: the fewest and the most items must be in order and at most {rule.most}"
            value = (int(least[place]), int(most[place]))
            raise ConfigError("bounds_n2", value, says, "change them, or raise max_items of the target")
        if not self.config.grammar:
            raise ConfigError("sample.grammar", False, "the grammar keeps the bounds on items", "set it to True")

    def lower(self, params: Any, rows: int, prompt_tokens: int) -> jax.stages.Lowered:
        """The program that draws and reads a chunk of tokens, with a memory of full size, for `omnijax plan`.

        Args:
            params: abstract parameters with shardings over the mesh to plan for, from `abstract_state`.
            rows: documents side by side, a multiple of the number of devices along `data` and `fsdp`.
            prompt_tokens: length of the longest prompt.
        """
        mesh = jax.tree.leaves(params)[0].sharding.mesh
        programs, width = dataclasses.replace(self, mesh=mesh), -(-prompt_tokens // PROMPT) * PROMPT
        weights = jax.eval_shape(self.model.unstacked, params)
        prompts, lengths = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((rows, width), (rows,)))

        def begin(*given: Any) -> LoopState:
            return programs.begin(*given, jax.random.key(0), given[-1], width + programs.most_tokens)

        loop = jax.eval_shape(begin, weights, prompts, lengths)
        weights, loop = abstract(weights, unstacked_shardings(mesh, weights)), abstract(loop, programs.shardings(loop))
        number = jax.ShapeDtypeStruct((), jnp.int32)
        return Programs.chunk.lower(programs, weights, loop, number, number)


def most_tokens(vocabulary: Vocabulary, target: SegmentTarget) -> int:
    """Tokens of the longest segment of a target, with the end of the document and without the segment's marker."""
    context = vocabulary.context(target.name)
    item = 1 if target.holds == "general" else vocabulary.fragment_tokens(context)
    return target.max_items * item + int(vocabulary.contexts.grouped[context]) + 1


class _Queue:
    """The host's part of sampling: documents wait in a queue, and `side` documents are sampled side by side.

    `prompts` are tokens, lengths and bounds of all documents. `group` rows begin together; `next` is the next document.
    For each row `numbers` has the number of its document, or -1 for a free row, and `needed` the slots that it needs
    for the next step.
    """

    def __init__(self, programs: Sampler, prompts: tuple[Any, ...], key: PRNGKeyArray, side: int) -> None:
        self.programs, self.prompts, self.key = programs, prompts, key
        count = len(prompts[0])
        self.group = side if count <= side else divisible(-(-side // REFILL), programs.mesh)
        self.next, self.numbers, self.needed = 0, np.full(side, -1), np.zeros(side, np.int32)
        self.drawn = np.full((count, programs.most_tokens), PAD, np.int32)

    def run(self, params: Any, progress: Callable[[float], None] | None) -> Int[np.ndarray, "n m"]:
        """Samples all documents."""
        loop, count = None, len(self.drawn)
        while self.next < count or (self.numbers >= 0).any():
            while (enough := min(self.group, count - self.next)) and (self.numbers < 0).sum() >= enough:
                loop = self._begin(params, loop, enough)
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
        forced, most = programs.forced_behind_prompt, programs.most_tokens
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
        most, least = self.prompts[0].shape[1] + self.programs.most_tokens, self.programs.block
        block = least * -(-most // (least * BLOCKS))
        return most if most <= 2 * least else min(most, max(2 * least, -(-needed // block) * block))

    def _collect(self, result: ChunkResult) -> float:
        """Takes the finished documents, and gives the share of tokens that are done if all documents are longest."""
        here = self.numbers >= 0
        done = here & result.done
        self.drawn[self.numbers[done]] = result.tokens[done]
        self.numbers[done], self.needed = -1, np.array(result.needed)
        count, most = self.drawn.shape
        finished = self.next - (self.numbers >= 0).sum()
        return float(finished * most + result.written[here & ~done].sum()) / (count * most)
