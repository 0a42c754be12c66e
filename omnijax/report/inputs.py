"""What the report reads: the files of one run directory. A value that is missing is an error that names it."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from omnijax.errors import DataError
from omnijax.files import read_lines, read_object

EVAL, EXAMPLES = "eval.json", "examples.json"
_TRAIN = "run `omnijax train` with this run directory first"
_EVALUATE = "run `omnijax evaluate` on this run directory first"


def file_of(run: pathlib.Path, name: str, split: str | None) -> pathlib.Path:
    """A file about a split in a run directory: `eval.json`, or `eval-SPLIT.json` if it isn't the run's own (None)."""
    path = run / name
    return path if split is None else path.with_stem(f"{path.stem}-{split.replace('/', '-')}")


class Values(dict[str, Any]):
    """An object of a JSON file, with others inside; raises a `DataError` if a value that is asked for isn't there."""

    def __init__(self, values: dict[str, Any], where: str, fix: str):
        super().__init__({key: _values(value, f"{where}{key}.", fix) for key, value in values.items()})
        self._where, self._fix = where, fix

    def __missing__(self, key: str) -> Any:
        raise DataError(f"{self._where}{key}", None, "the report needs this value", self._fix)


def _values(value: Any, where: str, fix: str) -> Any:
    if isinstance(value, list):
        return [_values(one, f"{where}{number}.", fix) for number, one in enumerate(value)]
    return Values(value, where, fix) if isinstance(value, dict) else value


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Everything the report shows, as read from a run directory.

    Attributes:
        run: run.json.
        metrics: one object for each logged step, by rising step; a step logged again after a restart counts once.
        evaluation: eval.json.
        examples: examples.json; its signals are HTML.
    """

    name: str
    run: Values
    config: Values
    metrics: list[dict[str, float]]
    evaluation: Values
    examples: Values

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


def field_of(form: str) -> str:
    """The field whose bits a form of document measures: `a` in `a, any order|b`."""
    return form.partition("|")[0].partition(",")[0]


def read_run(run_dir: pathlib.Path, split: str | None = None, out: pathlib.Path | None = None) -> RunFiles:
    """Reads the five files that the report is made of.

    Args:
        run_dir: directory of the run.
        split: one that isn't the run's own.
        out: where the evaluation is; the directory of the run by default.

    Raises:
        DataError: a file is missing or damaged.
    """
    trained = ((run_dir / name, _TRAIN) for name in ("run.json", "config.json"))
    evaluated = ((file_of(out or run_dir, name, split), _EVALUATE) for name in (EVAL, EXAMPLES))
    run, config, evaluation, examples = (
        Values(read_object(path, (), fix), f"{path.name}:", fix) for path, fix in (*trained, *evaluated)
    )
    path = run_dir / "metrics.jsonl"
    metrics = {line["step"]: Values(line, f"{path.name}:", _TRAIN) for line in read_lines(path)}
    if not metrics:
        raise DataError(path.name, str(path), "it must have a line for each logged step", _TRAIN)
    by_step: list[dict[str, float]] = [metrics[step] for step in sorted(metrics)]
    return RunFiles(run_dir.resolve().name, run, config, by_step, evaluation, examples)
