"""Reads and writes sound files: WAV, FLAC, Ogg Vorbis, Opus, MP3 and the other formats of libsndfile."""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np
from etils import epy
from jaxtyping import Float32

from omnijax.errors import DataError

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

    Integers are scaled to -1 … 1, around the middle of their range (8-bit WAV is unsigned). Nothing is clipped.

    Raises:
        DataError: the file can't be read, its rate isn't in `RATES_HZ`, its length isn't in `least_seconds` …
            `most_seconds`, it is silent, or a sample isn't finite or is beyond ±`LOUDEST`.
    """
    try:
        with soundfile.SoundFile(stream) as file:
            rate, seconds = file.samplerate, file.frames / max(file.samplerate, 1)
            if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
                rule = f"the sample rate must be in {RATES_HZ[0]:,} … {RATES_HZ[1]:,} Hz"
                raise DataError(name, f"{rate} Hz", rule, "give an undamaged file")
            if not least_seconds <= seconds <= most_seconds:
                rule = f"a sound must last {least_seconds:.3g} to {most_seconds:.4g} seconds"
                raise DataError(name, f"{seconds:.4g} seconds", rule, "cut it, or give another one")
            samples = file.read(file.frames, dtype="float64", always_2d=True)
            said, found = _data_bytes(file.extra_info)
            if found < said < STREAMED or (file.format == "FLAC" and len(samples) < file.frames):
                raise DataError(name, "file", "it ends before its sound does", "give a complete file")
    except (soundfile.LibsndfileError, ValueError, OSError) as error:
        why = str(error).replace(repr(stream), "it")
        raise DataError(name, "file", f"it can't be read ({why})", "give a sound, for example a WAV file") from error
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


def _data_bytes(log: str) -> tuple[int, int]:
    """Bytes of sound that the header of a WAV file announces and that the file has, from the log of libsndfile."""
    found = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def write_sound(waveform: Float32[np.ndarray, " samples"], rate_hz: int, stream: BinaryIO) -> None:
    """Writes a WAV file of 16-bit PCM in one channel. A waveform above full scale is scaled down, not clipped."""
    samples = np.round(waveform / max(1.0, float(np.abs(waveform).max(initial=0.0))) * 32767).astype("<i2")
    soundfile.write(stream, samples, rate_hz, subtype="PCM_16", format="WAV")
