"""Writes an experiment file for a folder of files: modalities that fit them, tasks in all directions, a small model."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import rich.progress

from omnijax.data.folder.index import Index, Problem, index_folder, opened, shown
from omnijax.data.manifest import EXPERIMENT_FILE
from omnijax.data.prepare import prepare
from omnijax.data.reading import Failed, Reader
from omnijax.errors import ConfigError, DataError
from omnijax.experiment import load_experiment, override
from omnijax.files import check_writable, write_atomically
from omnijax.modalities import FROM_FILES
from omnijax.modalities.base import Modality, Progress
from omnijax.vocab.cost import position_tokens

TOKENS = 2048
"""Tokens of a sequence, unless the user says another number."""
EPOCHS, MOST_STEPS, LEAST_STEPS = 20, 5000, 1000
_BATCH_TOKENS = 8192
_TEMPLATE = '''"""{title}

Command    omnijax train {path} --workdir runs/{name}
Data       {data}
Lost       {lost}
"""

import pathlib
import re

from omnijax.config import BatchConfig, Config, EvalConfig, OptimConfig, Task, TrainConfig, Writing
from omnijax.data.sources.folder import Folder
from omnijax.modalities import {classes}
from omnijax.model.sizes import SIZES


def get_config() -> Config:
    """Every field is written from every other one."""
    data = Folder(
        directory=str(pathlib.Path(__file__).parent),
        folder={folder!r},
        fields={{
{fields}
        }},
        label={label!r},
        window_seconds={window!r},
    )
    # The weights are those of the given and of the written field. Short fields weigh more, so that all count alike.
    tasks = (
{tasks}
    )
    return Config(
        data=data,
        writing=Writing(base=256),
        batch=BatchConfig(tasks, size={size}, sequence_length={tokens}),
        model=SIZES["nano"].model,
        optim=OptimConfig(learning_rate=SIZES["nano"].learning_rate, warmup_steps={warmup}),
        train=TrainConfig(steps={steps}, checkpoint_every={every}),
        eval=EvalConfig(examples={examples}),
    )
'''


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found in a folder.

    Attributes:
        index: its records.
        headers: of the files of each field.
        fields: the modality of each field.
        lost: a line about each thing that is lost or changed.
        problems: files that can't be used.
        window: seconds of the windows that films and sounds are cut into; 0 for whole files.
    """

    index: Index
    headers: Mapping[str, Sequence[Mapping[str, int | float]]]
    fields: Mapping[str, Modality]
    lost: Sequence[str]
    problems: Sequence[Problem]
    window: float


def look(folder: pathlib.Path, tokens: int, progress: Progress) -> Found:
    """Reads the headers of all files of a folder, and chooses modalities that fit them.

    Args:
        folder: the folder.
        tokens: of a sequence, which has to hold a document of two fields.
        progress: told the share of the files that are done.

    Raises:
        ConfigError: the folder mixes conventions.
        DataError: no file can be read.
    """
    index = index_folder(folder)
    files = [(field, path, entry.may_lack(field)) for entry in index.entries for field, path in entry.files.items()]
    headers: dict[str, list[Mapping[str, int | float]]] = {field: [] for field in index.kinds}
    problems, silent = list(index.problems), 0
    with Reader(functools.partial(_probe, folder, dict(index.kinds)), classes=index.kinds.values()) as reader:
        for number, ((field, path, spare), found) in enumerate(zip(files, reader.read(files), strict=True), 1):
            if isinstance(found, Failed) and spare:
                silent += 1
            elif isinstance(found, Failed):
                problems.append(Problem(shown(path), found.reason))
            else:
                headers[field].append(found)
            progress(number / len(files))
    for entry in index.entries:
        for field, text in entry.texts.items():
            headers[field].append({"bytes": len(text.encode())})
    lost = [f"{silent} films have no sound"] if silent else []
    fields, window = dict[str, Modality](), 0.0
    for field, kind in sorted(index.kinds.items(), key=lambda pair: (bool(pair[1].general), pair[0])):
        if not headers[field]:
            lost.append(f"no file of {field!r} can be used")
            continue
        known = headers[field]
        if window:
            known = [
                {**header, "seconds": min(header["seconds"], window)} if "seconds" in header else header
                for header in known
            ]
        choices = next(choices for choices in FROM_FILES if choices[0] is kind)
        suited = [choice.suited(known, tokens * 3 // 4) for choice in choices]
        modality, told = next((one for one in suited if not one[1]), suited[-1])  # without loss, if that is possible
        longest = max((header["seconds"] for header in known if "seconds" in header), default=0.0)
        if 0 < modality.seconds < longest:
            window = modality.seconds
            lost.append(f"films and sounds are cut into windows of {window:g} seconds")
        fields[field] = dataclasses.replace(modality, name=modality.name if modality.general else field)
        lost += told
    if not fields:
        rule = f"no file can be used ({problems[0].file}: {problems[0].reason})"
        raise DataError("folder", str(folder), rule, "mend the files")
    return Found(index, headers, _merged(fields), lost, problems, window)


def _probe(folder: pathlib.Path, kinds: Mapping[str, type[Modality]], task: tuple[str, str, bool]) -> Any:
    field, path, _ = task
    with opened(folder, path) as stream:
        return kinds[field].probe(stream)


def _merged(fields: Mapping[str, Modality]) -> dict[str, Modality]:
    """All fields of general tokens share a modality, whose limits hold the longest of them."""
    shared = [modality for modality in fields.values() if modality.general]
    if not shared:
        return dict(fields)
    longest = max(shared, key=lambda modality: modality.limits[0][1])
    return {field: longest if modality.general else modality for field, modality in fields.items()}


def prepare_folder(folder: pathlib.Path, out: pathlib.Path | None, skip_bad: float, overrides: Sequence[str]) -> None:
    """Makes a data set of a folder, with an experiment file beside it; stores what was added since. Prints what it did.

    Args:
        folder: of the files.
        out: directory of the data set.
        skip_bad: largest share of files that may be left out because they can't be used.
        overrides: knobs of the experiment, as on a command line.

    Raises:
        ConfigError: no `out`, or the folder mixes conventions.
        DataError: files that can't be used.
    """
    if out is None:
        raise ConfigError("--out", None, "the data set needs a directory", "name one, as in --out data/mine")
    check_writable(out, "--out")
    experiment = out / EXPERIMENT_FILE
    if not experiment.exists():
        with rich.progress.Progress(console=rich.console.Console(stderr=True)) as progress:
            bar = progress.add_task("Reading the headers", total=1.0)
            found = look(folder, TOKENS, lambda share: progress.update(bar, completed=share))
        check_problems(folder, found, skip_bad)
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(experiment, experiment_text(found, folder, experiment))
        print("".join(f"note: {line}\n" for line in found.lost), end="")
    of_folder = ["--data.folder", str(folder.resolve()), "--data.skip_bad", str(skip_bad)]
    config = override(load_experiment(experiment), [*of_folder, *overrides])
    prepare(config, more=True)
    for split in config.data.splits:
        print(f"{split}: {len(config.data.records(split)):,} records")
    print(f"{out}: ready. Next: omnijax train {experiment} --workdir runs/{out.name}")


def check_problems(folder: pathlib.Path, found: Found, skip: float) -> None:
    """Raises a `DataError` if a larger share of the files than `skip` can't be used; it names the first ones."""
    files = sum(map(len, found.headers.values())) + len(found.problems)
    if len(found.problems) > skip * files:
        first = "".join(f"\n  {one.file}: {one.reason}" for one in found.problems[:20])
        rule = f"{len(found.problems)} of {files} files can't be used{first}\n"
        share = math.ceil(1e3 * len(found.problems) / files) / 1e3
        fix = f"mend or remove them, or leave them out with --skip-bad {share:g}"
        raise DataError("folder", str(folder), rule, fix)


def experiment_text(found: Found, folder: pathlib.Path, path: pathlib.Path) -> str:
    """The text of an experiment file that trains on what was found.

    Args:
        found: what `look` gave.
        folder: where the files lie.
        path: of the experiment file.
    """
    sizes = {field: _tokens(modality) for field, modality in found.fields.items()}
    needed = 2 + sum(sorted(sizes.values())[-2:])
    tokens = max(256, 64 * math.ceil(needed / 64))
    names = tuple(found.fields)
    pairs: list[tuple[str, ...]] = [(one, other) for one in names for other in names if one != other] or [names]
    longest, size = max(sizes.values()), max(1, _BATCH_TOKENS // tokens)
    weights = {field: round(min(20.0, max(1.0, longest / count)), 1) for field, count in sizes.items()}
    tasks = [f"        Task({pair!r}, weights={_weights(pair, weights)!r})," for pair in pairs]
    records = len(found.index.entries)
    total = sum(sum(sizes[field] for field in pair) for pair in pairs) * records * EPOCHS
    steps = int(min(MOST_STEPS, max(LEAST_STEPS, total // (size * tokens))))
    counts = ", ".join(f"{len(headers):,} × {field}" for field, headers in found.headers.items())
    return _TEMPLATE.format(
        title=f"A model of the files in {folder.name}: {', '.join(found.fields)}.",
        path=path,
        name=path.parent.name,
        data=f"{records:,} records: {counts}",
        lost="\n           ".join(found.lost) or "nothing",
        classes=", ".join(
            sorted({name for one in found.fields.values() for name in re.findall(r"(\w+)\(", _code(one))})
        ),
        folder=str(folder.resolve()),
        fields="\n".join(f"            {field!r}: {_code(one)}," for field, one in found.fields.items()),
        label=found.index.label,
        window=found.window,
        tasks="\n".join(tasks),
        size=size,
        tokens=tokens,
        warmup=max(1, steps // 10),
        steps=steps,
        every=max(1, steps // 5),
        examples=min(64, max(1, records // 20)),
    )


def _tokens(modality: Modality) -> int:
    """Most tokens of a signal in base 256, with its markers."""
    limits, parts = modality.limits, modality.parts
    if not parts:
        return 1 + limits[0][1]
    places = position_tokens(max(most for _, most in limits))[1]
    digits = [math.ceil(math.log(part.fragments, 256) - 1e-9) for part in parts]
    return len(parts) + sum(most * (width + places) for (_, most), width in zip(limits, digits, strict=True))


def _weights(pair: Sequence[str], weights: Mapping[str, float]) -> tuple[float, ...]:
    return (weights[pair[0]],) if len(pair) == 1 else (round(0.1 * weights[pair[0]], 2), weights[pair[1]])


def _code(modality: Modality) -> str:
    """A modality as Python makes it, without the knobs that have their defaults."""
    knobs = [one for one in dataclasses.fields(modality) if one.init and getattr(modality, one.name) != one.default]
    values = {one.name: getattr(modality, one.name) for one in knobs}
    parts = (f"{name}={_code(value) if isinstance(value, Modality) else repr(value)}" for name, value in values.items())
    return f"{type(modality).__name__}({', '.join(parts)})"
