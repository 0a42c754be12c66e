"""Writes an experiment file for a folder of files: modalities that fit them, tasks in all directions, a small model."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import pathlib
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import rich.console
import rich.progress

from omnijax.config import Config, Writing
from omnijax.config.writing import vocabulary_of
from omnijax.data.columns import most_tokens
from omnijax.data.manifest import EXPERIMENT_FILE
from omnijax.data.prepare import prepare
from omnijax.data.reading import Failed, Reader
from omnijax.data.sources.folder.index import Index, Problem, index_folder, opened, shown, too_many, trusted
from omnijax.errors import ConfigError, DataError
from omnijax.experiment import load_experiment, override
from omnijax.files import check_writable, write_atomically
from omnijax.modalities import FROM_FILES
from omnijax.modalities.base import Modality, Progress
from omnijax.model.build import model_of
from omnijax.source import Source
from omnijax.step.sharding import make_mesh
from omnijax.step.state import abstract_batch, init_state, make_step

TOKENS = 2048
"""Tokens of a sequence, unless the user says another number."""
EPOCHS, MOST_STEPS, LEAST_STEPS = 20, 5000, 1000
BATCH_TOKENS = {"cpu": 4096}
"""Tokens of a batch on each device of a kind; 32,768 on others."""
Header = Mapping[str, int | float]
_TEMPLATE = '''"""{title}

Command    omnijax train {path} --workdir runs/{name}
Takes      {takes}
Data       {data}
Lost       {lost}
"""

import os

from omnijax.config import BatchConfig, Config, EvalConfig, OptimConfig, Task, TrainConfig, Writing
{sources}
from omnijax.modalities import {classes}
from omnijax.model.sizes import SIZES


def get_config() -> Config:
    """Every field is written from every other one."""
    fields = {{
{fields}
    }}
    directory = os.path.dirname(__file__)
    data = {data_code}
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
    """What was found in some folders.

    Attributes:
        indices: the records of each folder, by the name of its source.
        headers: of the files of each field.
        fields: the modality of each field.
        lost: a line about each thing that is lost or changed.
        problems: files that can't be used.
        window: seconds of the windows that films and sounds are cut into; 0 for whole files.
    """

    indices: Mapping[str, Index]
    headers: Mapping[str, Sequence[Header]]
    fields: Mapping[str, Modality]
    lost: Sequence[str]
    problems: Sequence[Problem]
    window: float


def look(folders: Mapping[str, pathlib.Path], tokens: int, progress: Progress) -> Found:
    """Reads the headers of all files of some folders, and chooses modalities that fit them.

    Args:
        folders: by the names of their sources.
        tokens: of a sequence, which has to hold a document of two fields.
        progress: told the share of the files that are done.

    Raises:
        ConfigError: a folder mixes conventions, or a field is of another kind in another folder.
        DataError: no file can be read.
    """
    indices = {name: index_folder(folder) for name, folder in folders.items()}
    kinds, headers = dict[str, type[Modality]](), dict[str, list[Header]]()
    problems, lost = list[Problem](), list[str]()
    for number, (name, index) in enumerate(indices.items()):
        for field, kind in index.kinds.items():
            if kinds.setdefault(field, kind) is not kind:
                rule = f"in another folder it is {kinds[field].__name__}, and here {kind.__name__}"
                raise ConfigError(f"the field {field!r}", str(folders[name]), rule, "rename one of them")
            headers.setdefault(field, [])
        problems += index.problems
        lost += index.notes
        share = functools.partial(lambda number, done: progress((number + done) / len(indices)), number)
        silent = _read_headers(folders[name], index, headers, problems, share)
        lost += [f"{silent} films have no sound"] if silent else []
    fields, window = dict[str, Modality](), 0.0
    for field, kind in sorted(kinds.items(), key=lambda pair: (bool(pair[1].general), pair[0])):
        if not headers[field]:
            lost.append(f"no file of {field!r} can be used")
            continue
        known = [
            {**one, "seconds": min(one["seconds"], window)} if window and "seconds" in one else one
            for one in headers[field]
        ]
        choices = next(choices for choices in FROM_FILES if choices[0] is kind)
        suited = [choice.suited(known, tokens * 3 // 4) for choice in choices]
        modality, told = next((one for one in suited if not one[1]), suited[-1])  # without loss, if that is possible
        longest = max((header["seconds"] for header in known if "seconds" in header), default=0.0)
        if 0 < modality.seconds < longest:
            window = modality.seconds
            rest = "a rest below half of it is dropped"
            lost.append(f"films and sounds are cut into windows of {window:g} seconds; {rest}")
        fields[field] = dataclasses.replace(modality, name=modality.name if modality.general else field)
        lost += told
    if not fields:
        rule = f"no file can be used ({problems[0].file}: {problems[0].reason})"
        raise DataError("folder", ", ".join(map(str, folders.values())), rule, "mend the files")
    # All fields of general tokens share a modality, whose limits hold the longest of them.
    longest_text = max((one for one in fields.values() if one.general), key=lambda one: one.limits[0][1], default=None)
    merged = {field: longest_text if longest_text and one.general else one for field, one in fields.items()}
    return Found(indices, headers, merged, lost, problems, window)


def _read_headers(
    folder: pathlib.Path, index: Index, headers: Mapping[str, list[Header]], problems: list[Problem], progress: Progress
) -> int:
    """Adds the headers of the files of a folder, and its problems; returns the number of films without sound."""
    files = [(field, path, entry.may_lack(field)) for entry in index.entries for field, path in entry.files.items()]
    silent, work = 0, functools.partial(_probe, folder, dict(index.kinds))
    with Reader(work, classes=index.kinds.values(), here=trusted(folder)) as reader:
        for number, ((field, path, spare), found) in enumerate(zip(files, reader.read(files), strict=True), 1):
            if isinstance(found, Failed) and spare:
                silent += 1
            elif isinstance(found, Failed):
                problems.append(Problem(shown(path), found.reason))
            else:
                headers[field].append(found)
            progress(number / len(files))
    for entry in index.entries:
        for field in entry.texts.keys() & headers.keys():
            headers[field].append({"bytes": len(entry.texts[field].encode())})
    return silent


def _probe(folder: pathlib.Path, kinds: Mapping[str, type[Modality]], task: tuple[str, str, bool]) -> Any:
    field, path, _ = task
    with opened(folder, path) as stream:
        return kinds[field].probe(stream)


def prepare_folders(
    folders: Sequence[pathlib.Path], out: pathlib.Path | None, skip_bad: float, overrides: Sequence[str]
) -> None:
    """Makes a data set of folders, with an experiment file beside it; stores what was added since. Prints what it did.

    Args:
        folders: of the files; several become a mixture.
        out: directory of the data set.
        skip_bad: largest share of files that may be left out because they can't be used.
        overrides: knobs of the experiment, as on a command line.

    Raises:
        ConfigError: no `out`, or a folder mixes conventions.
        DataError: files that can't be used.
    """
    if out is None:
        raise ConfigError("--out", None, "the data set needs a directory", "name one, as in --out data/mine")
    if not 0 <= skip_bad <= 1:
        raise ConfigError("--skip-bad", skip_bad, "it is a share, in 0 … 1", "give such a number")
    check_writable(out, "--out")
    places = [(one, str(one)) if trusted(one) else (one.resolve(), one.resolve().name) for one in folders]
    named = {re.sub(r"[^\w-]+", "_", name).strip("_") or "files": place for place, name in places}
    if len(named) < len(folders):
        rule = "the folders of a mixture have different names"
        raise ConfigError("folder", ", ".join(map(str, folders)), rule, "rename one of them")
    experiment = out / EXPERIMENT_FILE
    if not experiment.exists():
        with rich.progress.Progress(console=rich.console.Console(stderr=True)) as progress:
            bar = progress.add_task("Reading the headers", total=1.0)
            found = look(named, TOKENS, lambda share: progress.update(bar, completed=share))
        files = sum(map(len, found.headers.values())) + len(found.problems)
        if len(found.problems) > skip_bad * files:
            raise too_many(", ".join(map(str, folders)), found.problems, files, "files")
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(experiment, experiment_text(found, named, experiment))
        takes = cost_here(override(load_experiment(experiment), overrides))
        write_atomically(experiment, experiment_text(found, named, experiment, takes))
        print(f"training takes {takes}")
        print("".join(f"note: {line}\n" for line in found.lost), end="")
    config = override(load_experiment(experiment), overrides)
    config = dataclasses.replace(config, data=_placed(config.data, named, skip_bad))
    prepare(config, more=True)
    for split in config.data.splits:
        print(f"{split}: {len(config.data.records(split)):,} records")
    print(f"{out}: ready. Next: omnijax train {experiment} --workdir runs/{out.name}")


def cost_here(config: Config) -> str:
    """The time and the memory that training takes on this machine, measured over a few steps on an empty batch."""
    mesh, model = make_mesh(config.mesh), model_of(config)
    state, batch = init_state(config, model, mesh), abstract_batch(config, mesh)
    empty = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding), batch)
    step = make_step(config, model, mesh).lower(state, empty).compile()
    took, found = [], step.memory_analysis()
    for _ in range(4):
        began = time.perf_counter()
        state = jax.block_until_ready(step(state, empty)[0])
        took.append(time.perf_counter() - began)
    minutes, device = config.train.steps * statistics.median(took[1:]) / 60, jax.devices()[0].device_kind
    memory = (found.argument_size_in_bytes + found.temp_size_in_bytes) / 1e9 if found else 0.0
    return f"about {math.ceil(minutes)} min and {memory:.1f} GB on {jax.device_count()} × {device}"


def _placed(source: Source, folders: Mapping[str, pathlib.Path], skip_bad: float) -> Source:
    """The source of an experiment, with the folders as they are given now."""
    if source.parts.keys() == {""}:
        return dataclasses.replace(source, folder=str(next(iter(folders.values()))), skip_bad=skip_bad)  # type: ignore[call-arg]
    if source.parts.keys() != folders.keys():
        rule = f"this data set is made of {', '.join(source.parts)}"
        raise ConfigError("folder", ", ".join(folders), rule, "name the same folders, or another --out")
    sources = {name: _placed(one, {name: folders[name]}, skip_bad) for name, one in source.parts.items()}
    return dataclasses.replace(source, sources=sources)  # type: ignore[call-arg]


def experiment_text(
    found: Found, folders: Mapping[str, pathlib.Path], path: pathlib.Path, takes: str = "unknown"
) -> str:
    """The text of an experiment file that trains on what was found."""
    vocabulary = vocabulary_of(Writing(base=256), found.fields)  # the template has the same
    sizes = {field: most_tokens(vocabulary, field, modality) for field, modality in found.fields.items()}
    needed = 1 + sum(sorted(sizes.values())[-2:])
    tokens = max(256, 64 * math.ceil(needed / 64))
    together = [[name for name in found.fields if name in index.kinds] for index in found.indices.values()]
    of_folder = (itertools.permutations(own, min(2, len(own))) for own in together)
    pairs: list[tuple[str, ...]] = list(dict.fromkeys(itertools.chain.from_iterable(of_folder)))
    devices = jax.device_count()
    longest, size = max(sizes.values()), devices * max(1, BATCH_TOKENS.get(jax.default_backend(), 32768) // tokens)
    weights = {field: round(min(20.0, max(1.0, longest / count)), 1) for field, count in sizes.items()}
    tasks = [f"        Task({pair!r}, weights={_weights(pair, weights)!r})," for pair in pairs]
    records = sum(len(index.entries) for index in found.indices.values())
    total = sum(sum(sizes[field] for field in pair) for pair in pairs) * records * EPOCHS
    steps = int(min(MOST_STEPS, max(LEAST_STEPS, total // (size * tokens))))
    counts = ", ".join(f"{len(headers):,} × {field}" for field, headers in found.headers.items())
    codes = {field: _code(modality) for field, modality in found.fields.items()}
    return _TEMPLATE.format(
        title=f"A model of the files in {', '.join(found.indices)}: {', '.join(found.fields)}.",
        path=path,
        takes=takes,
        name=path.parent.name,
        data=f"{records:,} records: {counts}",
        lost="\n           ".join(found.lost) or "nothing",
        classes=", ".join(sorted({name for code in codes.values() for name in re.findall(r"(\w+)\(", code)})),
        fields="\n".join(f"        {field!r}: {code}," for field, code in codes.items()),
        sources="from omnijax.data.sources.folder import Folder"
        + "\nfrom omnijax.data.sources.mixture import Mixture" * (len(folders) > 1),
        data_code=_data_code(found, folders),
        tasks="\n".join(tasks),
        size=size,
        tokens=tokens,
        warmup=max(1, steps // 10),
        steps=steps,
        every=max(1, steps // 5),
        examples=min(64, max(1, records // 20)),
    )


def _data_code(found: Found, folders: Mapping[str, pathlib.Path]) -> str:
    """The source, as Python makes it."""
    codes = {}
    for name, index in found.indices.items():
        own = [field for field in found.fields if field in index.kinds]
        fields = "fields" if own == list(found.fields) else f"{{name: fields[name] for name in {own!r}}}"
        code = f"folder={str(folders[name])!r}, fields={fields}, label={index.label!r}, window_seconds={found.window!r}"
        codes[name] = code = code + f", own_splits={index.splits!r}" * bool(index.splits)
    if len(codes) == 1:
        return f"Folder(directory=directory, {code})"
    sources = "".join(f"        {name!r}: Folder({code}),\n" for name, code in codes.items())
    return f"Mixture(directory=directory, sources={{\n{sources}    }})"


def _weights(pair: Sequence[str], weights: Mapping[str, float]) -> tuple[float, ...]:
    return (weights[pair[0]],) if len(pair) == 1 else (round(0.1 * weights[pair[0]], 2), weights[pair[1]])


def _code(modality: Modality) -> str:
    """A modality as Python makes it, without the knobs that have their defaults."""
    knobs = [one for one in dataclasses.fields(modality) if one.init and getattr(modality, one.name) != one.default]
    values = {one.name: getattr(modality, one.name) for one in knobs}
    parts = (f"{name}={_code(value) if isinstance(value, Modality) else repr(value)}" for name, value in values.items())
    return f"{type(modality).__name__}({', '.join(parts)})"
