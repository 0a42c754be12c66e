"""`omnijax compress` and `decompress`: a file in as few bytes as a run can, and its content back."""

from __future__ import annotations

import io
import json
import platform
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from omnijax.config import Config
from omnijax.errors import CheckpointError, ConfigError, DataError, PlatformError, check_known
from omnijax.evaluate.likelihoods import forms_of
from omnijax.evaluate.loading import OpenRun
from omnijax.files import check_writable, write_atomically
from omnijax.modalities.base import Modality
from omnijax.run.directory import load_modalities
from omnijax.sample.coding import compressed, restored

SUFFIX, MAGIC = ".omnijax", b"omnijax 1 "


class Compressed(NamedTuple):
    """A compressed file.

    Attributes:
        out: its path.
        payload: bytes that the arithmetic coder wrote, without the header.
        raw: bytes of the same content uncompressed, as `Modality.raw` has it.
    """

    out: Path
    payload: int
    raw: int


def compress(run: Path, file: Path, field: str | None, out: Path | None, trust: bool = False) -> Compressed:
    """Compresses a file of a lossless field with the newest checkpoint of a run.

    Args:
        run: its directory.
        file: to compress.
        field: that the file belongs to; by default the only one that fits its ending.
        out: the compressed file; by default FILE.omnijax.
        trust: execute the run's experiment file although it comes from elsewhere.

    Raises:
        ConfigError: no field of the run fits, or `out` is there.
        DataError: the file can't be read, or not without changing something.
        PlatformError: the coder isn't installed.
    """
    out = out or file.with_name(file.name + SUFFIX)
    _check_new(out)
    if not file.is_file():
        raise DataError("FILE", str(file), "there is no such file", "give the path of one")
    with OpenRun(run, trusted=trust) as opened:
        fields = _fields(opened.config)
        name = field or _field_of(fields, file)
        check_known("--field", name, fields, "lossless fields that a task of the run begins with are")
        config, generator, step = opened.load()
        modality, made = load_modalities(run, config)[name], opened.identity(step)
    with file.open("rb") as stream:
        signals, told = modality.cut(stream)
    payload = _coded(lambda: compressed(generator, name, modality.encode(signals).split() if signals else []))
    raw = b"".join(modality.raw(signal) for signal in signals)
    header = {"run": made, "step": step, "field": name, "signals": len(signals), "told": told, **_machine()}
    header |= {"suffix": file.suffix, "raw": zlib.crc32(raw), "payload": [len(payload), zlib.crc32(payload)]}
    line = json.dumps(header, ensure_ascii=True).encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, MAGIC + b"%08x " % zlib.crc32(line) + line + b"\n" + payload)
    return Compressed(out, len(payload), len(raw))


def decompress(run: Path, file: Path, out: Path | None, trust: bool = False) -> Path:
    """Decompresses a file that `compress` made with the same run; returns the path of the result.

    Args:
        run: its directory.
        file: of `compress`.
        out: the file to write; by default FILE without `.omnijax`, with the ending that the field writes.
        trust: execute the run's experiment file although it comes from elsewhere.

    Raises:
        ConfigError: the result is there.
        CheckpointError: another run made the file, or the run doesn't have this checkpoint any more.
        DataError: the file is damaged, or `compress` didn't make it.
        PlatformError: the coder isn't installed, or this machine computes other floats than the one that made the file.
    """
    header, payload = _read(file)
    with OpenRun(run, trusted=trust) as opened:
        check_known("field", header["field"], _fields(opened.config), "the lossless fields of the run are")
        if opened.identity(header["step"]) != header["run"]:
            fix = "give the run that compressed it"
            raise CheckpointError("run", str(run), f"another run compressed {file.name}", fix)
        config, generator, _ = opened.load(header["step"])
        modality = load_modalities(run, config)[header["field"]]
    ending = modality.suffix or header["suffix"]
    out = out or Path(str(file).removesuffix(SUFFIX)).with_suffix(ending)
    _check_new(out)
    there = {name: header[name] for name in _machine()}
    rule = f"this processor computes other floats ({_words(_machine())}) than the one that made it ({_words(there)})"
    fix = "decompress it where it was made"
    try:
        found = _coded(lambda: restored(generator, header["field"], header["signals"], payload))
        signals = [modality.exactly(items) for items in found]
    except (DataError, AssertionError) as error:
        raise PlatformError(str(file), "other floats", rule, fix) from error
    if zlib.crc32(b"".join(modality.raw(signal) for signal in signals)) != header["raw"]:
        raise PlatformError(str(file), "other floats", rule, fix)
    modality.paste(signals, header["told"], buffer := io.BytesIO())
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, buffer.getvalue())
    return out


def _check_new(out: Path) -> None:
    check_writable(out.parent, "--out")
    if out.exists():
        raise ConfigError("--out", str(out), "there is a file of this name", "give another name, or remove the file")


def _fields(config: Config) -> dict[str, Modality]:
    """Fields that can be compressed: lossless ones that some task predicts from nothing, in raster order."""
    forms = [form for form in forms_of(config) if form.learned[0] and not form.shuffled[0]]
    first = {form.fields[0] for form in forms}
    return {name: one for name, one in config.data.fields.items() if name in first and one.lossless}


def _field_of(fields: dict[str, Modality], file: Path) -> str:
    fitting = [name for name, modality in fields.items() if file.suffix.lower() in modality.suffixes]
    if len(fitting) == 1:
        return fitting[0]
    rule = f"{len(fitting) or 'none'} of the lossless fields of the run ({', '.join(fields) or 'none'}) fit {file.name}"
    raise ConfigError("--field", None, rule, "say which one")


def _coded(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except ImportError as error:
        fix = "pip install 'omnijax[compress]'"
        raise PlatformError("import", "constriction", "arithmetic coding needs this library", fix) from error


def _machine() -> dict[str, str]:
    """What the numbers of a model depend on besides its parameters."""
    return {"jax": jax.__version__, "device": jax.devices()[0].device_kind, "machine": platform.machine()}


def _words(machine: dict[str, str]) -> str:
    return f"jax {machine['jax']} on {machine['device']} ({machine['machine']})"


def _read(file: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the payload of a compressed file; raises a `DataError` if it is damaged or foreign."""
    try:
        content = file.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError("FILE", str(file), "there is no such file", "give the path of one") from error
    if not content.startswith(MAGIC):
        raise DataError("FILE", str(file), "`omnijax compress` didn't make it", "give a file of this command")
    line, _, payload = content[len(MAGIC) :].partition(b"\n")
    told, _, header = line.partition(b" ")
    damaged = told != b"%08x" % zlib.crc32(header)
    found: dict[str, Any] = {} if damaged else json.loads(header)
    if damaged or [len(payload), zlib.crc32(payload)] != found["payload"]:
        raise DataError(
            "FILE", str(file), "it was damaged after it was written", "take another copy, or compress again"
        )
    return found, payload
