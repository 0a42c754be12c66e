"""Runs the demo with the two commands of the README, and compares its accuracies with its run card (CPU)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rates import Figure

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "experiments" / "digits.py"
TOLERANCE = 0.04
"""How far an accuracy may be below the CPU's: 2.5 standard errors of the difference of two shares of 0.95 of 360."""
TINY = (
    *("--train.steps", "20", "--train.checkpoint_every", "20", "--data.utterances", "1"),
    *("--data.validation_images", "1700", "--data.test_images", "0", "--data.test_voices", "0"),
    *("--model.depth", "1", "--model.unroll", "1", "--model.width", "32"),
    *("--eval.examples", "12", "--eval.batch_size", "12", "--eval.show", "4"),
    *("--data.speech.griffin_lim_iterations", "2"),
)


def accuracies_of_card(card: str) -> dict[str, float]:
    """The accuracies of the result on the run card, by direction."""
    result = card[card.index("\nResult") : card.index("\nNoticed")]
    return {f"{a}->{b}": float(share) for a, b, share in re.findall(r"(\w+)→(\w+)\s+(\d\.\d+)", result)}


def figures(tiny: bool, until: float) -> Iterator[Figure]:
    """Trains and evaluates the demo, and compares its accuracies with the run card.

    Args:
        tiny: a data set of 97 records, a small model and 20 steps, to test that it runs.
        until: the commands must end by this time.
    """
    cpu = accuracies_of_card(DIGITS.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        small = (*TINY, "--data.directory", str(Path(scratch) / "data")) if tiny else ()
        yield Figure("train, data set included", _run(until, "train", str(DIGITS), "--workdir", str(run), *small), "s")
        yield Figure("evaluate", _run(until, "evaluate", str(run)), "s")
        found = json.loads((run / "eval.json").read_text(encoding="utf-8"))
    for name, direction in found["directions"].items():
        share = direction["accuracy"]
        held = None if tiny else share >= cpu[name] - TOLERANCE
        demand = f"≥ {cpu[name]} − {TOLERANCE}"
        yield Figure(f"{name}: held-out accuracy", share, "", None, demand, held)
    yield Figure("bits a pixel", found["bits_per_item"]["image|text"]["units"]["pixel"], "bits")
    yield Figure("decodable", found["decodable"], "", None, "= 1", found["decodable"] == 1)


def _run(until: float, *arguments: str) -> float:
    """Runs the command `omnijax` of this installation; what it prints goes to stderr. Returns its seconds.

    Raises:
        subprocess.CalledProcessError: the command failed.
        subprocess.TimeoutExpired: the command took too long.
    """
    start = time.perf_counter()
    call = [sys.executable, "-c", "import sys; from omnijax.cli import main; sys.exit(main())", *arguments]
    subprocess.run(call, cwd=ROOT, check=True, stdout=sys.stderr, timeout=max(1.0, until - time.time()))
    return time.perf_counter() - start
