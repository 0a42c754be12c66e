"""What the report reads: the files of one run directory, checked before anything is written."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from omnijax.errors import DataError
from omnijax.run.directory import read_object

_RUN_KEYS = ("command", "versions", "device")
_METRIC_KEYS = ("step", "loss", "seconds", "tokens_per_second")
_EVAL_KEYS = (
    *("step", "split", "seed", "examples", "label", "classes", "directions"),
    *("completions", "bits_per_item", "anchors", "sampling", "device", "seconds"),
)
_DECODABLE = ("decodable", "decodable_without_grammar")
_PART_KEYS = {
    "directions": ("through", "examples", *_DECODABLE, "metrics"),
    "completions": ("examples", "decodable", "metrics"),
    "bits_per_item": (*("uniform", "raw", "renormalised", "leak", "digits", "position", "by_place", "errors"), "units"),
    "anchors": ("unit",),
}
_JUDGED_KEYS = {
    "directions": ("standard_error", "chance", "shuffled", "judge", "confusion"),
    "completions": ("standard_error", "blank_accuracy", "blank_standard_error"),
}
_MADE_KEYS = ("record", "class", "given", "made", "real", "judged")
_EXAMPLE_KEYS = {"directions": _MADE_KEYS, "completions": _MADE_KEYS, "real": ("class", "real", "coded")}
_TRAIN = "run `omnijax train` with this run directory first"
_EVALUATE = "run `omnijax evaluate` on this run directory first"


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Everything the report shows, as read from a run directory.

    Attributes:
        run: run.json.
        metrics: one object for each logged step, by rising step; a step that was logged again after a restart counts
            once.
        evaluation: eval.json.
        examples: examples.json; its signals are HTML.
    """

    name: str
    run: dict[str, Any]
    config: dict[str, Any]
    metrics: list[dict[str, float]]
    evaluation: dict[str, Any]
    examples: dict[str, Any]

    @property
    def split(self) -> str:
        """The split that was measured, in words."""
        return f"the {self.evaluation['split']} split"

    @property
    def label(self) -> str:
        """What a class is called."""
        return str(self.evaluation["label"] or "class")

    @property
    def fields(self) -> list[str]:
        """All fields that were read or written, in the order in which they first occur."""
        found = [field for entry in self.evaluation["directions"].values() for field in entry["through"]]
        found += [name.partition("/")[0] for name in self.evaluation["completions"]]
        found += [field_of(form) for form in self.evaluation["bits_per_item"]]
        return list(dict.fromkeys(found))

    def class_name(self, index: int | None) -> str:
        """Name of a class; "" where the record has none."""
        return "" if index is None else str(self.evaluation["classes"][index])


def field_of(form: str) -> str:
    """The field whose bits a form of document measures: `a` in `a, any order|b`."""
    return form.partition("|")[0].partition(",")[0]


def read_run(run_dir: pathlib.Path) -> RunFiles:
    """Reads the five files that the report is made of.

    Raises:
        DataError: a file is missing or damaged, or lacks a value.
    """
    run = read_object(run_dir / "run.json", _RUN_KEYS, _TRAIN)
    config = read_object(run_dir / "config.json", (), _TRAIN)
    path = run_dir / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        metrics = {line["step"]: line for line in sorted(lines, key=lambda line: line["step"])}
        lacking = [key for line in metrics.values() for key in _METRIC_KEYS if key not in line]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            path.name, str(path), f"each line must be a JSON object with a step ({error})", _TRAIN
        ) from error
    if lacking or not metrics:
        raise DataError(path.name, lacking, f"each line must have {', '.join(_METRIC_KEYS)}", _TRAIN)
    evaluation = read_object(run_dir / "eval.json", _EVAL_KEYS, _EVALUATE)
    if evaluation["directions"]:
        _require(evaluation, "eval.json:", _DECODABLE)
    for part, keys in _PART_KEYS.items():
        for name, entry in evaluation[part].items():
            judged = _JUDGED_KEYS[part] if "accuracy" in entry else ()
            _require(entry, f"eval.json:{part}.{name}", (*keys, *judged))
    examples = read_object(run_dir / "examples.json", _EXAMPLE_KEYS, _EVALUATE)
    for part, keys in _EXAMPLE_KEYS.items():
        for name, entries in examples[part].items():
            for number, entry in enumerate(entries):
                _require(entry, f"examples.json:{part}.{name}.{number}", keys)
    return RunFiles(run_dir.resolve().name, run, config, [*metrics.values()], evaluation, examples)


def _require(entry: dict[str, Any], field: str, keys: Iterable[str]) -> None:
    for key in keys:
        if key not in entry:
            raise DataError(f"{field}.{key}".replace(":.", ":"), None, "the report needs this value", _EVALUATE)
