"""How fast is sampling? Tokens a second with the grammar, against `generate` of Hugging Face's transformers.

    pip install -e '.[bench]' && python experiments/bench/sample.py
    python experiments/bench/sample.py --json --repeats 9

4 layers of width 256, 4 heads, 512 primary tokens, float32, fresh parameters; 16 documents side by side, each with 256
tokens after a prompt of 32. The reference is a Llama of the same shape in PyTorch with a cache. It draws as many new
tokens, from all 512, without an end token, with the number of threads that is fastest. Both run in turns in one
process, and ratios are medians over neighbouring runs. The bound is the time to read the weights and the used slots of
the cache once for each token, at the speed at which this machine sums 256 MB. After this, 64 documents of 1 to 30
fragments are sampled with and without refilling finished sequences. Takes about three minutes on two idle CPU cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import torch
import transformers
from random_codes import prompt
from row import Row, machine, print_machine, print_table, spread

from omnijax.config import ModelConfig, SampleConfig
from omnijax.model.transformer import Transformer, parameter_count
from omnijax.sample.sampler import Sampler, SegmentTarget
from omnijax.vocab.vocabulary import Space, Vocabulary

MODEL = ModelConfig(depth=4, width=256, heads=4, kv_heads=4, head_size=64, mlp_width=768)
ROWS, PROMPT, NEW = 16, 32, 256
UNEVEN, FRAGMENTS = 64, 30
REFERENCE = "transformers' generate (the reference)"
UNIT = "tokens a second over all sequences; ratio of speeds to the reference"
Run = Callable[[int], float]


def vocabulary(position: str) -> Vocabulary:
    """512 primary tokens, and pictures of fragments: with forced positions, or with digits only."""
    size = 2**32 if position == "before" else 2**24
    parts: dict[str, Any] = {"layout": "inline", "position": position, "width": "fixed"}
    spaces = (Space("image", size),)
    return Vocabulary(
        general=187, positions=64, digits=256, base=256, spaces=spaces, control=("text", "image", "eos"), **parts
    )


def ours(position: str, items: int, grammar: bool = True, skip: bool = True, grow: bool = True) -> Run:
    """Returns a function from a seed to the sampler's seconds for one token of all sequences."""
    v = vocabulary(position)
    model = Transformer(MODEL, v.size)
    params = jax.jit(model.init)(jax.random.key(0))
    random = np.random.default_rng(0)
    prompts = prompt(v, "text", [random.integers(0, v.general, PROMPT - 2) for _ in range(ROWS)], "image")
    assert prompts[0].shape == (ROWS, PROMPT)
    target = SegmentTarget("image", items, items, "fragments", SampleConfig(grammar=grammar))
    sampler = Sampler.of(model, v, target, skip)
    sampler = sampler if grow else dataclasses.replace(sampler, block=PROMPT + NEW)
    assert sampler.most_tokens == NEW

    def seconds(seed: int) -> float:
        start = time.perf_counter()
        tokens = sampler(params, *prompts, jax.random.key(seed))
        return (time.perf_counter() - start) / int((tokens > 0).sum(axis=1).max())

    return seconds


def theirs() -> Run:
    """The same for `generate`, with the number of threads that is fastest."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=512,
        hidden_size=MODEL.width,
        intermediate_size=MODEL.mlp_width,
        num_hidden_layers=MODEL.depth,
        num_attention_heads=MODEL.heads,
        num_key_value_heads=MODEL.kv_heads,
        max_position_embeddings=PROMPT + NEW,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    prompts = torch.randint(1, 512, (ROWS, PROMPT))
    options = {"max_new_tokens": NEW, "do_sample": True, "top_k": 0, "use_cache": True}

    def seconds(seed: int) -> float:
        torch.manual_seed(seed)
        start = time.perf_counter()
        with torch.inference_mode():
            tokens = model.generate(prompts, attention_mask=torch.ones_like(prompts), **options)
        assert tokens.shape == (ROWS, PROMPT + NEW)
        return (time.perf_counter() - start) / NEW

    taken = {}
    for threads in range(1, int(machine()["cores"]) + 1):
        torch.set_num_threads(threads)
        taken[threads] = min(seconds(seed) for seed in range(2))
    torch.set_num_threads(min(taken, key=taken.__getitem__))
    return seconds


def uneven(refill: bool) -> Run:
    """Returns a function from a seed to the seconds per document, for documents of very different lengths."""
    v = vocabulary("before")
    model = Transformer(MODEL, v.size)
    params = jax.jit(model.init)(jax.random.key(0))
    # The probability of an end is chosen so that all lengths occur.
    params["ends"]["head"] = params["ends"]["head"].at[:, v.end].set(0.0)
    random = np.random.default_rng(0)
    prompts, lengths = prompt(v, "text", [random.integers(0, 187, PROMPT - 2) for _ in range(UNEVEN)], "image")
    sampler = Sampler.of(model, v, SegmentTarget("image", 1, FRAGMENTS, "fragments"))

    def seconds(seed: int) -> float:
        start, key = time.perf_counter(), jax.random.key(seed)
        if refill:
            sampler(params, prompts, lengths, key, rows=ROWS)
        else:
            for first in range(0, UNEVEN, ROWS):
                part = slice(first, first + ROWS)
                sampler(params, prompts[part], lengths[part], jax.random.fold_in(key, first))
        return (time.perf_counter() - start) / UNEVEN

    return seconds


def bound() -> Run:
    """Seconds to read the weights and an evenly filled cache at the speed of this machine."""
    params = jax.eval_shape(Transformer(MODEL, 512).init, jax.random.key(0))
    slots = PROMPT + NEW / 2
    numbers = parameter_count(params) + 2 * MODEL.depth * ROWS * MODEL.kv_heads * MODEL.head_size * slots
    block, add = jnp.ones(2**26, jnp.float32), jax.jit(jnp.sum)

    def seconds(seed: int) -> float:
        add(block).block_until_ready()
        start = time.perf_counter()
        add(block).block_until_ready()
        return (time.perf_counter() - start) * numbers / block.size

    return seconds


def measured(ways: dict[str, Run], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of each function, run in turns. The first run of each compiles and isn't counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, seconds in ways.items():
            taken = seconds(repeat)
            if repeat:
                found[name].append(taken)
    return {name: np.array(taken) for name, taken in found.items()}


def rows(repeats: int) -> list[Row]:
    """The rows of the main table."""
    ways = {
        REFERENCE: (theirs(), ""),
        "grammar on, each token drawn": (ours("none", 85), "≥ 1.6"),
        "grammar on, positions forced and skipped": (ours("before", 51), "≥ 1.6"),
        "grammar on, positions forced, each a pass of its own": (ours("before", 51, skip=False), ""),
        "grammar off": (ours("none", 85, grammar=False), ""),
        "grammar on, each token drawn, a cache of full size": (ours("none", 85, grow=False), ""),
        "the bound by weights and cache": (bound(), ""),
    }
    found = measured({name: run for name, (run, _) in ways.items()}, repeats)
    table = []
    for name, (_, demand) in ways.items():
        figure, ratio = ROWS / float(np.median(found[name])), float(np.median(found[REFERENCE] / found[name]))
        table.append(Row(name, figure, spread(found[name]), ratio, demand))
    return table


def uneven_rows(repeats: int) -> list[Row]:
    """The rows for documents of very different lengths: documents a second."""
    batches, refilled = "one batch after the other (the reference)", "finished sequences refilled"
    found = measured({batches: uneven(False), refilled: uneven(True)}, repeats)
    table = []
    for name, taken in found.items():
        ratio = float(np.median(found[batches] / taken))
        table.append(Row(name, 1 / float(np.median(taken)), spread(taken), ratio, ""))
    return table


def main() -> None:
    """Measures, and prints tables and lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="no table, only the lines")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    console = rich.console.Console(quiet=options.json)
    lines = [print_machine(console)]
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    lines.append(json.dumps(versions))
    lines += print_table(console, UNIT, rows(options.repeats), bench="sample")
    title = "documents a second, 64 of 1 to 30 fragments, 16 side by side; ratio of speeds"
    lines += print_table(console, title, uneven_rows(options.repeats), bench="sample, uneven")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
