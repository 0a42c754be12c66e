"""Reads and writes sound files: WAV, FLAC, Ogg Vorbis, Opus, MP3 and the other formats of libsndfile."""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np
from etils import epy
from jaxtyping import Float32, Shaped

from omnijax.errors import DataError
from omnijax.modalities.clip_file import probe_film, read_track

with epy.lazy_imports():  # extras: only sound files need them
    import soundfile
    import soxr

RATES_HZ = (1_000, 1_000_000)
"""Range of sample rates that are read. Other rates occur only in damaged headers."""
STREAMED = 2**31 - 2**16
"""A WAV file whose header says at least this many bytes was written to a pipe, where the length wasn't known."""
LOUDEST = 2.0**15
"""Largest floating-point sample. Full scale is 1, but some programs write floats on the scale of 16 bits."""


def read_sound(
    name: str, stream: BinaryIO, rate_hz: int, least_seconds: float, most_seconds: float
) -> Float32[np.ndarray, " samples"]:
    """The mean of a file's channels, resampled to `rate_hz`.

    Integers are scaled to -1 … 1, around the middle of their range (8-bit WAV is unsigned). Nothing is clipped. Raises
    a `DataError` if the file can't be read, its rate isn't in `RATES_HZ`, its length isn't in `least_seconds` …
    `most_seconds`, it is silent, or a sample isn't finite or is beyond ±`LOUDEST`.
    """
    samples, rate = _decoded(name, stream, "float64", least_seconds, most_seconds)
    wrong = ~(np.abs(samples) <= LOUDEST)
    if wrong.any():
        where, value = int(np.flatnonzero(wrong.any(axis=1))[0]), float(samples[wrong][0])
        rule = f"samples must be finite numbers of at most {LOUDEST:g}"
        raise DataError(name, f"sample {where} is {value:g}", rule, "give another file")
    mono = samples.mean(axis=1).astype(np.float32)
    if not mono.any():
        what = "its channels cancel each other out" if np.abs(samples).max() > 1e-30 else "all samples are 0"
        raise DataError(name, "silence", f"a sound must not be silent; {what}", "give another file")
    return np.asarray(soxr.resample(mono, rate, rate_hz), np.float32)


def probe_sound(name: str, stream: BinaryIO) -> dict[str, int | float]:
    """Sample rate in Hz, channels, seconds, and bits (0 for other than whole numbers of 8 or 16), from the header.

    Raises a `DataError` if it is no sound file.
    """
    if _is_film(stream):
        header = probe_film(name, stream)
        if not header["sound"]:
            raise DataError(name, "file", "the film has no sound", "give another film")
        stream.seek(0)
        _, rate, channels = read_track(name, stream, 0.0, 0.0)
        return {"rate_hz": rate, "channels": channels, "seconds": header["seconds"], "bits": 0}
    try:
        with soundfile.SoundFile(stream) as file:
            seconds = file.frames / max(file.samplerate, 1)
            bits = {"PCM_16": 16, "PCM_U8": 8, "PCM_S8": 8}.get(file.subtype, 0)
            return {"rate_hz": file.samplerate, "channels": file.channels, "seconds": seconds, "bits": bits}
    except (soundfile.LibsndfileError, ValueError, OSError) as error:
        raise _unreadable(name, stream, error) from error


def _unreadable(name: str, stream: BinaryIO, error: Exception) -> DataError:
    why = str(error).replace(repr(stream), "it")
    return DataError(name, "file", f"it can't be read ({why})", "give a sound, for example a WAV file")


def _is_film(stream: BinaryIO) -> bool:
    """Whether a file is a container of films (ISO media, Matroska, AVI), by its first bytes."""
    start = stream.read(12)
    stream.seek(0)
    return start[4:8] == b"ftyp" or start[:4] == b"\x1a\x45\xdf\xa3" or start[8:12] == b"AVI "


def _data_bytes(log: str) -> tuple[int, int]:
    """Bytes of sound that the header of a WAV file announces and that the file has, from the log of libsndfile."""
    found = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def read_samples(
    name: str, stream: BinaryIO, rate_hz: int, channels: int, bits: int, most_seconds: float, convert: bool
) -> Shaped[np.ndarray, "frames channels"]:
    """The samples of a file as they are: int16, or uint8 with 8 bits.

    With `convert`, a file of another rate is resampled, channels become their mean or copies of one, and samples of
    more bits are rounded. What is louder than full scale afterwards is scaled down. Raises a `DataError` if the file
    can't be read, is empty or too long, or needs a conversion that isn't allowed.
    """
    start = stream.tell()
    header = probe_sound(name, stream)
    stream.seek(start)
    depth = header["bits"]
    exact = (header["rate_hz"], header["channels"], depth) == (rate_hz, channels, bits)
    if not exact and not convert:
        found = f"{header['rate_hz']:,} Hz, {header['channels']} channels, {depth or 'other than 8 or 16'} bits"
        rule = f"a file must have {rate_hz:,} Hz, {channels} channels and {bits} bits, so that nothing is changed"
        raise DataError(name, found, rule, f"convert it, or set {name}.convert")
    samples, rate = _decoded(name, stream, "int16" if exact else "float64", 0.0, most_seconds)
    if not len(samples):
        raise DataError(name, "0 seconds", "a sound must have samples", "give another file")
    if exact:
        return samples if bits == 16 else ((samples.astype(np.int32) >> 8) + 128).astype(np.uint8)
    if not np.isfinite(samples).all():
        raise DataError(name, "a sample", "samples must be finite numbers", "give another file")
    if samples.shape[1] != channels:
        samples = np.repeat(samples.mean(axis=1, keepdims=True), channels, axis=1)
    values = soxr.resample(samples, rate, rate_hz)
    values /= max(1.0, float(np.abs(values).max(initial=0.0)))
    if bits == 16:
        return np.rint(values * 32767).astype(np.int16)
    return np.rint(values * 127 + 128).astype(np.uint8)


def write_samples(samples: Shaped[np.ndarray, "frames channels"], rate_hz: int, stream: BinaryIO) -> None:
    """Writes a WAV file of int16 or uint8 samples as they are."""
    wide = samples if samples.dtype == np.int16 else ((samples.astype(np.int32) - 128) << 8).astype(np.int16)
    subtype = "PCM_16" if samples.dtype == np.int16 else "PCM_U8"
    soundfile.write(stream, wide, rate_hz, subtype=subtype, format="WAV")


def _decoded(
    name: str, stream: BinaryIO, dtype: str, least_seconds: float, most_seconds: float
) -> tuple[Shaped[np.ndarray, "frames channels"], int]:
    """The samples of a file, and its rate."""
    if _is_film(stream):
        header = probe_film(name, stream)
        stream.seek(0)
        samples, rate, _ = read_track(name, stream, 0.0, min(most_seconds, header["seconds"]))
        return samples.astype(np.float64), rate
    try:
        with soundfile.SoundFile(stream) as file:
            rate, seconds = file.samplerate, file.frames / max(file.samplerate, 1)
            if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
                rule = f"the sample rate must be in {RATES_HZ[0]:,} … {RATES_HZ[1]:,} Hz"
                raise DataError(name, f"{rate} Hz", rule, "give an undamaged file")
            if not least_seconds <= seconds <= most_seconds:
                rule = f"a sound must last {least_seconds:.3g} to {most_seconds:.4g} seconds"
                raise DataError(name, f"{seconds:.4g} seconds", rule, "cut it, or give another one")
            samples = file.read(file.frames, dtype=dtype, always_2d=True)
            said, found = _data_bytes(file.extra_info)
            if found < said < STREAMED or (file.format == "FLAC" and len(samples) < file.frames):
                raise DataError(name, "file", "it ends before its sound does", "give a complete file")
            return samples, rate
    except (soundfile.LibsndfileError, ValueError, OSError) as error:
        raise _unreadable(name, stream, error) from error


def write_sound(waveform: Float32[np.ndarray, " samples"], rate_hz: int, stream: BinaryIO) -> None:
    """Writes a WAV file of 16-bit PCM in one channel. A waveform above full scale is scaled down, not clipped."""
    samples = np.round(waveform / max(1.0, float(np.abs(waveform).max(initial=0.0))) * 32767).astype("<i2")
    soundfile.write(stream, samples, rate_hz, subtype="PCM_16", format="WAV")
