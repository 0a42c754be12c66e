"""One arm with one seed: trained in a run directory of its own, then measured; `result.json` is written last."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from omnijax import evaluate
from omnijax.config import Config, modality_of
from omnijax.data.corpus import Corpus
from omnijax.errors import CheckpointError, DataError
from omnijax.evaluate.likelihoods import bits_per_item
from omnijax.modalities import PatchImage
from omnijax.model.build import model_of
from omnijax.run.checkpoint import Checkpoints
from omnijax.run.directory import RUN, check, write_json
from omnijax.run.writers import METRICS
from omnijax.step.sharding import make_mesh, mesh_that_fits
from omnijax.step.state import abstract_batch, abstract_state, make_step
from omnijax.sweep.fairness import SAYS, fragments_hash
from omnijax.sweep.inputs import RESULT
from omnijax.sweep.resolve import ARMS, Job, heldout_corpus
from omnijax.train import load_corpus, train


def directory(out: Path, job: Job) -> Path:
    """The run directory of a job."""
    return out / ARMS / job.name


def is_done(out: Path, job: Job) -> bool:
    """Whether its result is there, of this configuration.

    Raises:
        CheckpointError: the directory belongs to another configuration.
    """
    run = directory(out, job)
    if not (run / RESULT).exists():
        return False
    check(run, job.config)
    return True


def run_job(job: Job, out: Path, tasks: tuple[str, ...], budget: dict[str, Any], command: str) -> bool:
    """Trains an arm, or goes on with it, and measures it; of its checkpoints the last one is kept.

    Args:
        job: which.
        out: the directory of the sweep.
        tasks: what to measure.
        budget: of the sweep, for the record.
        command: what the user typed, for the record.

    Returns:
        Whether it is done; else a signal stopped it, and the same command goes on.

    Raises:
        OmnijaxError: see `omnijax.train.train`; or other data than when the sweep was resolved.
    """
    run = directory(out, job)
    heldout = heldout_corpus(job.config)
    views = {view for task in job.config.batch.tasks for view in task.segments}
    here = {
        "fragments": fragments_hash(load_corpus(job.config), views),
        "heldout": fragments_hash(heldout, map(modality_of, views)),
    }
    for part, found in here.items():
        if found != job.data[part]:
            rule = f"{SAYS[part]} must be those of when the sweep was resolved, {job.data[part][:16]}"
            raise DataError(f"arms.{job.arm}.data", found[:16], rule, "use the data that the other arms have")
    if train(job.config, run, command).stopped:
        return False
    write_json(run / RESULT, measure(job, run, heldout, tasks) | {"budget": budget, "command": command})
    with Checkpoints(run) as checkpoints:  # those of the curve have been measured
        checkpoints.keep_only(job.end.step)
    return True


def measure(job: Job, run: Path, heldout: Corpus, tasks: tuple[str, ...]) -> dict[str, Any]:
    """All that is said of a trained arm.

    Raises:
        CheckpointError: a checkpoint of the curve is gone or damaged.
    """
    config, end = job.config, job.end
    bits = _bits_along(job, run, heldout)
    speed = _speed(run)
    seconds = end.tokens / speed["tokens_per_second"]
    about = json.loads((run / RUN).read_text())
    curve = [
        {
            "step": seen.step,
            "items": seen.items,
            "seconds": seconds * seen.tokens / end.tokens,
            "flops": job.step_flops * seen.step,
            "bits": {form: entry["renormalised"] for form, entry in bits[seen.step].items()},
        }
        for seen in job.curve
    ]
    return {
        "arm": job.arm,
        "seed": job.seed,
        **end._asdict(),
        "seconds": seconds,
        "flops": job.step_flops * end.step,
        "data": job.data,
        "bits": bits[end.step],
        "bits_per_unit": bits_per_unit(config, bits[end.step]),
        "speed": {**speed, "tokens_per_item": job.tokens_per_item},
        "cost": {**job.cost, "peak_bytes": peak_bytes(config)},
        "curve": curve,
        "directions": _generated(run, tasks),
        "device": about["device"],
        "versions": about["versions"],
    }


def _bits_along(job: Job, run: Path, heldout: Corpus) -> dict[int, dict[str, dict[str, Any]]]:
    """`bits_per_item` by step, at each checkpoint of the curve."""
    config, model = job.config, model_of(job.config)
    abstract = abstract_state(config, model, mesh_that_fits(config)).params
    records = min(config.eval.examples, len(heldout))
    found = {}
    with Checkpoints(run) as checkpoints:
        if gone := {seen.step for seen in job.curve} - {*checkpoints.steps}:
            rule = "checkpoints of the curve are gone, as they are when all is measured, and so is the result"
            raise CheckpointError(f"arms.{job.name}", sorted(gone), rule, f"delete {run}: it is trained anew then")
        for seen in job.curve:
            params = checkpoints.restore_params(seen.step, abstract, config.vocabulary)
            found[seen.step] = bits_per_item(config, model, params, heldout, records)
    return found


def bits_per_unit(config: Config, bits: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Bits a pixel of pictures and a byte of words of the spoken digits, where they were measured with nothing given.

    Speech isn't among them: its fragments don't give the samples back.
    """
    found: dict[str, float] = {}
    if config.data.source != "spoken_digits":
        return found
    if "text" in bits:
        found["text"] = bits["text"]["renormalised"]
    if "image" in bits:
        picture = PatchImage()
        found["image"] = bits["image"]["renormalised"] * bits["image"]["items"] / (picture.height * picture.width)
    return found


def peak_bytes(config: Config) -> int:
    """Memory of one training step on a device, as the compiler reckons it: arguments, results and what is temporary."""
    mesh, model = make_mesh(config.mesh), model_of(config)
    lowered = make_step(config, model, mesh).lower(abstract_state(config, model, mesh), abstract_batch(config, mesh))
    found = lowered.compile().memory_analysis()
    assert found is not None
    return int(
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
        + found.temp_size_in_bytes
        + found.generated_code_size_in_bytes
    )


def _speed(run: Path) -> dict[str, float]:
    """Medians over the intervals of the log, without the first tenth of them: these compile."""
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    after = lines[min(len(lines) - 1, -(-len(lines) // 10)) :]
    return {
        name: statistics.median(float(line[name]) for line in after)
        for name in ("items_per_second", "tokens_per_second")
    }


def _generated(run: Path, tasks: tuple[str, ...]) -> dict[str, Any] | None:
    """What the other tasks than `bits` find of the newest checkpoint."""
    others = [task for task in tasks if task != "bits"]
    return evaluate.measure(evaluate.load_run(run), others) if others else None
