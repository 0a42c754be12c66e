"""What the report reads: the files of one run directory, checked before anything is written."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import zipfile
from typing import Any

import numpy as np

from omnijax.errors import DataError
from omnijax.report.figures import Completions
from omnijax.report.signals import Signals

_EVAL_KEYS = (
    *("step", "examples", "directions", "standard_errors", "routes", "confusion", "judges", "bits_per_item"),
    *("bits_per_pixel", "decodable", "decodable_without_grammar", "decodable_by_direction"),
    *("completions", "shuffled_control", "shuffled_control_by_direction", "chance", "sampling", "seconds"),
)
_RUN_KEYS = ("command", "versions", "device")
_METRIC_KEYS = ("step", "loss", "seconds", "tokens_per_second")
_TRAIN = "run `omnijax train` with this run directory first"
_EVALUATE = "run `omnijax evaluate` on this run directory first"


@dataclasses.dataclass(frozen=True)
class Direction:
    """The shown examples of one direction, `source` to `target`."""

    source: Signals
    target: Signals
    labels: np.ndarray
    """int [n], the true digits."""
    judged: np.ndarray
    """int [n], what the judge read in each target; outside 0...9 where it is no digit."""

    def distinct(self, count: int) -> list[int]:
        """Indices of the first `count` examples that each show another digit, in the order of the file."""
        _, first = np.unique(self.labels, return_index=True)
        return [int(i) for i in np.sort(first)[:count]]


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Everything the report shows, as read from a run directory."""

    name: str
    run: dict[str, Any]
    config: dict[str, Any]
    metrics: list[dict[str, float]]
    """One object a logged step, by rising step; a step that was logged again after a restart counts once."""
    evaluation: dict[str, Any]
    samples: dict[str, np.ndarray]

    @property
    def sample_rate_hz(self) -> int:
        """Of all waveforms of the run."""
        return int(self.samples["sample_rate_hz"])

    def signals(self, key: str) -> Signals:
        """The signals stored under `key`, with their lengths when they are waveforms."""
        values = self.samples[key]
        lengths_key = f"{key.removesuffix('/signal')}{'/' if key.endswith('/signal') else '_'}length"
        lengths = self.samples[lengths_key] if values.ndim == 2 else None
        return Signals(values, lengths, self.sample_rate_hz)

    def direction(self, name: str) -> Direction | None:
        """The examples of direction `name`, or None when the run shows none of it."""
        if f"{name}/signal" not in self.samples:
            return None
        labels, judged = self.samples[f"{name}/label"], self.samples[f"{name}/judged"]
        return Direction(self.signals(f"{name}/source"), self.signals(f"{name}/signal"), labels, judged)

    def completions(self, half: str) -> Completions | None:
        """The shown pictures that were completed from one half; None when the run shows none."""
        if f"completed/{half}/picture" not in self.samples:
            return None
        parts = ("real", "picture", "given", "label", "judged")
        return Completions(*(self.samples[f"completed/{half}/{part}"] for part in parts))

    def real(self) -> dict[str, tuple[Signals, np.ndarray]]:
        """Real held-out signals by name, with their labels; `speech_codec` goes by the labels of `speech`."""
        keys = [key for key in self.samples if key.startswith("real/") and not key.endswith(("_label", "_length"))]
        return {
            key.removeprefix("real/"): (self.signals(key), self.samples[f"{key.removesuffix('_codec')}_label"])
            for key in keys
        }


def read_run(run_dir: pathlib.Path) -> RunFiles:
    """Read the five files that the report is made of.

    Raises:
        DataError: a file is missing or damaged, or `eval.json` lacks a measure.
    """
    run = _read_object(run_dir / "run.json", _TRAIN)
    _require(run, "run.json", _RUN_KEYS, _TRAIN)
    config = _read_object(run_dir / "config.json", _TRAIN)
    lines = _read_text(run_dir / "metrics.jsonl", _TRAIN).splitlines()
    metrics = {}
    for number, line in enumerate(lines, start=1):
        entry = _parse(line, f"metrics.jsonl:{number}", _TRAIN)
        _require(entry, f"metrics.jsonl:{number}", _METRIC_KEYS, _TRAIN)
        metrics[entry["step"]] = entry
    if not metrics:
        raise DataError("metrics.jsonl", "", "must hold at least one logged step", _TRAIN)
    evaluation = _read_object(run_dir / "eval.json", _EVALUATE)
    _require(evaluation, "eval.json", _EVAL_KEYS, _EVALUATE)
    samples = _read_arrays(run_dir / "samples.npz")
    name = run_dir.resolve().name
    return RunFiles(name, run, config, [metrics[step] for step in sorted(metrics)], evaluation, samples)


def _require(entry: dict[str, Any], field: str, keys: tuple[str, ...], fix: str) -> None:
    for key in keys:
        if key not in entry:
            raise DataError(f"{field}:{key}", None, "the report needs this value", fix)


def _read_text(path: pathlib.Path, fix: str) -> str:
    if not path.is_file():
        raise DataError(path.name, str(path), "the report needs this file", fix)
    return path.read_text(encoding="utf-8")


def _parse(text: str, field: str, fix: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(field, text[:80], f"must be JSON ({error})", fix) from error
    if not isinstance(value, dict):
        raise DataError(field, text[:80], "must be a JSON object", fix)
    return value


def _read_object(path: pathlib.Path, fix: str) -> dict[str, Any]:
    return _parse(_read_text(path, fix), path.name, fix)


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(path.name, str(path), "the report needs this file", _EVALUATE)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(path.name, str(path), f"must be a readable .npz archive ({error})", _EVALUATE) from error
    if "sample_rate_hz" not in arrays:
        raise DataError(f"{path.name}:sample_rate_hz", None, "the players need the sample rate", _EVALUATE)
    return arrays
