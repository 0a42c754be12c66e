"""`omnijax sample` and `omnijax rank`: signals from the command line or from files in, signals out."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.progress

from omnijax.config.evaluation import SEEDS
from omnijax.errors import ConfigError, DataError, check_known
from omnijax.evaluate.many import check_overrides
from omnijax.evaluate.trained_run import Ranked, TrainedRun, load
from omnijax.experiment import override
from omnijax.files import check_writable, read_object, write_atomically, write_object
from omnijax.modalities.base import Modality
from omnijax.paths import as_path, is_remote
from omnijax.run.directory import config_digest, load_config

LINES, BATCH = ".jsonl", ".batch.json"
MOST_SAMPLES = 4096
"""Largest number of samples of one input. They are all written into one sheet."""


def sample(
    run: Path,
    given: Sequence[str],
    to: str,
    out: Path | None,
    count: int = 1,
    seed: int = 0,
    trust: bool = False,
    overrides: Sequence[str] = (),
) -> str:
    """Generates a field from others.

    Args:
        run: its directory.
        given: as `FIELD=VALUE`. A value is what was typed, with `@FILE` to read it, where the field is typed, and a
            file otherwise; or a folder of such files, or a `.jsonl` file with an object of fields a line, for a batch.
        to: the field to generate.
        out: file for the signal; for a batch a folder, or a `.jsonl` file where the field is typed. A batch goes on
            where it was stopped.
        count: number of samples of one input, written as a sheet.
        seed: draws the tokens.
        trust: execute the run's experiment file although it comes from elsewhere.
        overrides: knobs of `eval`, as in `--eval.targets.FIELD.top_p 0.9`.

    Returns:
        A line for people: the signal, or where it is.

    Raises:
        ConfigError: the run can't go from these fields to that one, or `out` is missing or of another kind.
        DataError: a file can't be read.
    """
    if not 1 <= count <= MOST_SAMPLES:
        raise ConfigError("--count", count, f"must be in 1 … {MOST_SAMPLES}", "leave it out for one sample")
    if not 0 <= seed < SEEDS:
        raise ConfigError("--seed", seed, f"must be in 0 … {SEEDS - 1}", "choose another one")
    check_overrides(overrides, ("eval",))
    if out is not None:
        check_writable(out.parent, "--out")
    values, config = _values(given), override(load_config(run, trust), overrides)
    trained = load(run, trust=trust, config=config)
    if to not in trained.config.generated:
        names = ", ".join(trained.config.generated)
        raise ConfigError("--to", to, f"the run can generate {names}", "choose one of these")
    target = trained.modalities[to]
    many = [field for field, value in values.items() if os.path.isdir(value) or value.endswith(LINES)]
    if many:
        if len(values) > 1:
            rule = "a folder or a .jsonl file stands alone"
            raise ConfigError("--from", many[0], rule, "put all fields into the lines")
        if count > 1:
            raise ConfigError("--count", count, "a batch has one sample of each input", "repeat the input instead")
        return _sample_batch(trained, _batch(trained, many[0], as_path(values[many[0]])), to, out, seed, overrides)
    if target.suffix and (out is None or out.suffix != target.suffix):
        rule = f"{to} needs a file that ends with {target.suffix}"
        raise ConfigError("--out", out and str(out), rule, "give such a name")
    if out is not None and out.exists() and not out.is_file():
        kind = "folder" if out.is_dir() else "device or pipe"
        raise ConfigError("--out", str(out), f"it is a {kind}, and must be a file", "give the name of a file")
    record = {field: read_value(trained, field, value) for field, value in values.items()}
    route = trained.route(tuple(record), to)
    signals = [signal for signal in trained.sample_batch([record] * count, to, seed) if signal is not None]
    if not signals:
        fix = "choose another --seed, or train with sample.grammar=True for this target"
        raise DataError("sample", to, "no sample can be decoded", fix)
    lost = f" ({count - len(signals)} of {count} samples can't be decoded)" if len(signals) < count else ""
    if out is None:
        return "\n".join(target.show(signal) for signal in signals) + lost
    write_file(target, signals, out)
    return f"{' → '.join([*route[0], *(route[1:] or [to])])}: {out}{lost}"


def rank(
    run: Path, given: Sequence[str], to: str | None, among: Sequence[str], trust: bool = False
) -> list[tuple[str, Ranked]]:
    """Orders answers by their exact likelihood, the likeliest first. The arguments are those of `sample`.

    Args:
        run: its directory.
        given: as `FIELD=VALUE`.
        to: the field of the answers; by default the one that a task predicts.
        among: the answers, as values of that field.
        trust: execute the run's experiment file.

    Raises:
        ConfigError: no task predicts this field from the given ones.
        DataError: a file can't be read.
    """
    _check_text("--among", among)
    trained = load(run, trust=trust)
    record = {field: read_value(trained, field, value) for field, value in _values(given).items()}
    field = to or trained.predicted(record)
    answers = [read_value(trained, field, value) for value in among]
    places = {id(answer): value for answer, value in zip(answers, among, strict=True)}
    return [(places[id(found.answer)], found) for found in trained.rank(record, answers, field)]


def _check_text(option: str, values: Sequence[str]) -> None:
    for value in values:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(option, ascii(value), "must be text in UTF-8", "type it again") from error


def _values(given: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    _check_text("--from", given)
    for one in given:
        field, equals, value = one.partition("=")
        if not equals or not field or field in values:
            fix = "write --from FIELD=VALUE once for each known field"
            raise ConfigError("--from", one, "must be FIELD=VALUE, each field once", fix)
        values[field] = value
    return values


def read_value(trained: TrainedRun, field: str, value: str) -> Any:
    """The signal of a field that a command line names.

    Raises:
        ConfigError: the run has no such field.
        DataError: there is no such file, or it can't be read.
    """
    check_known("--from", field, trained.modalities, "the fields of the run are")
    modality = trained.modalities[field]
    if not modality.suffix and not value.startswith("@"):
        return modality.parse(value)
    path = as_path(value.removeprefix("@"))
    if not path.is_file():
        raise DataError(f"--from {field}", str(path), "there is no such file", "give the path of one")
    try:
        with path.open("rb") as stream:
            return modality.read(stream)
    except DataError as error:
        rule = error.rule if error.value == "file" else f"{error.value}: {error.rule}"
        raise DataError(f"--from {field}", str(path), rule, error.fix) from error
    except (ValueError, TypeError, LookupError, EOFError, OSError) as error:  # `read` of a user's own modality
        rule = f"{type(modality).__name__}.read can't read it ({type(error).__name__}: {error})"
        raise DataError(f"--from {field}", str(path), rule, "give another file") from error


def _batch(trained: TrainedRun, field: str, source: Path) -> dict[str, dict[str, Any]]:
    """The records of a folder or a `.jsonl` file by name."""
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if not path.name.startswith(".") and not path.is_dir())
        if not files:
            raise DataError(f"--from {field}", str(source), "the folder has no files", "give another one")
        by_name = {path.stem: path for path in reversed(files)}
        for path in files:
            if by_name[path.stem] != path:
                rule = f"{by_name[path.stem].name} and {path.name} differ in their endings only"
                raise DataError(f"--from {field}", str(source), rule, "rename one of them")
        return {path.stem: {field: read_value(trained, field, f"@{path}")} for path in files}
    try:
        lines = source.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError as error:
        raise DataError(f"--from {field}", str(source), "there is no such file", "give the path of one") from error
    except UnicodeDecodeError as error:
        rule = f"a .jsonl file is text in UTF-8 ({error})"
        raise DataError(f"--from {field}", str(source), rule, "give the path of another one") from error
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{source}:{number + 1}", line[:80], f"must be JSON ({error})", "mend the line") from error
        entry = entry if isinstance(entry, dict) else {field: entry}
        name = str(entry.pop("id", number))
        if name in found or Path(name).name != name or not name.isprintable():
            rule = "each line has an id of its own, which can be the name of a file"
            raise DataError(f"{source}:{number + 1}: id", name, rule, "choose another id, or leave them all out")
        if None in entry.values():
            raise DataError(f"{source}:{number + 1}", line[:80], "a value is null", "leave out unknown fields")
        found[name] = {key: read_value(trained, key, str(part)) for key, part in entry.items()}
    return found


def _sample_batch(
    trained: TrainedRun,
    batch: Mapping[str, dict[str, Any]],
    to: str,
    out: Path | None,
    seed: int,
    overrides: Sequence[str],
) -> str:
    """Samples all records, `eval.batch_size` at a time; samples that this command has made before are kept."""
    target = trained.modalities[to]
    lines = out is not None and out.suffix == LINES
    if out is None or (target.suffix and lines):
        rule = "a batch needs a folder" + ("" if target.suffix else ", or a .jsonl file")
        raise ConfigError("--out", out and str(out), rule, "add one")
    if out.exists() and out.is_dir() == lines:
        kind = "folder" if out.is_dir() else "file"
        raise ConfigError("--out", str(out), f"there is a {kind} of this name", "choose another one")
    paths = {name: out / f"{name}{target.suffix or '.txt'}" for name in batch}
    there = _lines_there(out, to) if lines else {name for name, path in paths.items() if path.exists()}
    made: dict[str, Any] = {"seed": seed, "knobs": list(overrides), "step": trained.step, "to": to}
    made |= {"inputs": _digest_of(batch), "run": config_digest(trained.config)}
    _check_same(out, out.with_name(f".{out.name}{BATCH}") if lines else out / BATCH, made, there)
    names, size, undecodable = [*batch], trained.config.eval.batch_size, 0
    for start in rich.progress.track(range(0, len(batch), size), description="sampling", transient=True):
        part = names[start : start + size]
        if there.issuperset(part):
            continue
        # A chunk is drawn whole or not at all, so that a batch that was stopped ends with the same samples.
        records = [batch[name] for name in part]
        if start:  # a last chunk is filled up, so that the programs of the others serve it
            records += records[-1:] * (size - len(part))
        for name, signal in zip(part, trained.sample_batch(records, to, (seed + start) % SEEDS)):
            if name in there:
                continue
            undecodable += signal is None
            if lines:
                shown = None if signal is None else target.show(signal)
                out.parent.mkdir(parents=True, exist_ok=True)
                line = json.dumps({"id": name, to: shown}, ensure_ascii=False) + "\n"
                if is_remote(out):
                    whole = out.read_text(encoding="utf-8") if out.exists() else ""
                    write_atomically(out, whole + line)
                    continue
                with out.open("a", encoding="utf-8") as file:
                    file.write(line)
            elif signal is not None:
                write_file(target, [signal], paths[name])
    lost = f", {undecodable} can't be decoded" if undecodable else ""
    return f"{out}: {len(batch)} samples, {len(batch.keys() - there)} of them new{lost}"


def _digest_of(batch: Mapping[str, dict[str, Any]]) -> str:
    """A digest of the names and signals of a batch."""
    found = hashlib.sha256()
    for name, record in batch.items():
        for field, signal in record.items():
            array = isinstance(signal, np.ndarray)
            found.update(f"{name!r} {field!r} {(signal.dtype, signal.shape) if array else ''}".encode())
            found.update(signal.tobytes() if array else pickle.dumps(signal))
    return found.hexdigest()


def _check_same(out: Path, path: Path, made: dict[str, Any], there: set[str]) -> None:
    """Checks that the samples in `out` are of the same command; notes the command in `path` if there are none.

    Raises a `ConfigError` if they are of another command, or of none.
    """
    fix = "give a new name, or remove what is there"
    if there and not path.exists():
        raise ConfigError("--out", str(out), f"{sorted(there)[0]!r} is there, and no such command made it", fix)
    if not there:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_object(path, made)
        return
    before = read_object(path, (), fix)
    for name, value in made.items():
        if before.get(name) != value:
            rule = f"its samples are of another command: {name} is {before.get(name)!r} there and {value!r} here"
            raise ConfigError("--out", str(out), rule, fix)


def _lines_there(out: Path, to: str) -> set[str]:
    """The ids of the samples in a `.jsonl` file; removes a last line that a kill cut off.

    Raises a `ConfigError` if the file has other lines than samples of this field; it is left as it is then.
    """
    *whole, cut_off = out.read_bytes().split(b"\n") if out.exists() else [b""]
    found, start = [], b'{"id": "'
    for line in whole:
        try:
            entry = json.loads(line)
        except ValueError:  # no JSON, or no UTF-8
            entry = None
        if not isinstance(entry, dict) or set(entry) != {"id", to}:
            break
        found.append(entry["id"])
    if len(found) < len(whole) or not (cut_off.startswith(start) or start.startswith(cut_off)):
        rule = f"line {len(found) + 1} is no sample of {to} that this command wrote"
        raise ConfigError("--out", str(out), rule, "give the name of a new file")
    if cut_off:
        out.write_bytes(b"".join(line + b"\n" for line in whole))
    return set(found)


def write_file(modality: Modality, signals: Sequence[Any], path: Path) -> None:
    """Writes one signal, or a sheet of several, through a temporary file."""
    buffer = io.BytesIO()
    if len(signals) == 1:
        modality.write(signals[0], buffer)
    else:
        modality.sheet(signals, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
