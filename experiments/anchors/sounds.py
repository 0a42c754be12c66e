"""Lossless codecs on the held-out speech, in bits per sample of 16-bit waveforms.

The fragments of speech are lossy, so these figures can't be compared with the likelihood of a model. They show how much
information waveforms have.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
import soundfile
from jaxtyping import Int16

from experiments.anchors.codecs import FAMILIES, Best, Codec, Writing, best_after, best_of, settings
from experiments.anchors.per_unit import of_signals
from omnijax.sweep.anchors import Anchor

_MOST_BEFORE = 2**21  # bytes of training speech that a compressor knows; waveforms hardly repeat
Waveform = Int16[np.ndarray, " samples"]


def anchors(train: Sequence[Waveform], heldout: Sequence[Waveform], sample_rate_hz: int) -> Iterator[Anchor]:
    """FLAC and general compressors on the held-out utterances, the latter also after training speech.

    Raises:
        PlatformError: a codec isn't lossless.
    """
    flac = best_of(flacs(sample_rate_hz), heldout)
    yield _anchor("FLAC, each alone", flac, heldout, "whole files")
    heads = np.array([8 * head_bytes(flac.codec.encode(one)) for one in heldout])
    frames = Best(flac.bits - heads, flac.codec)
    yield _anchor("FLAC, each alone, frames only", frames, heldout, "without what stands before the first frame")
    whole = np.concatenate(list(heldout))
    yield _anchor("FLAC, one stream", best_of(flacs(sample_rate_hz), [whole]), heldout, "all utterances in one file")
    before = np.concatenate(list(train))[-_MOST_BEFORE // 2 :]
    for name in FAMILIES:
        alone = best_of(settings(name), heldout, WRITINGS)
        yield _anchor(f"{name}, each alone", alone, heldout, "a bare stream each")
        stream = best_of(settings(name), [whole], WRITINGS)
        yield _anchor(f"{name}, one stream", stream, heldout, "all utterances in one")
        chosen = [one for one in WRITINGS if one is stream.writing]
        after = best_after([stream.codec], before, whole, chosen, _MOST_BEFORE)
        note = f"the last {len(before):,} samples of the training split are known to both sides"
        yield _anchor(f"{name}, one stream, after training speech", after, heldout, note)


def _anchor(name: str, best: Best, heldout: Sequence[Waveform], note: str) -> Anchor:
    told = f"{note}; best of several: {best.told}"
    samples = np.array([len(one) for one in heldout])
    if len(best.bits) > 1:
        return of_signals(name, "speech", "bits per sample", best.bits, samples, told)
    return Anchor(name, "speech", "bits per sample", float(best.bits.sum() / samples.sum()), None, told)


def flacs(sample_rate_hz: int) -> Iterator[Codec]:
    """FLAC at its lowest, default and highest level."""
    for level in (0, 5, 8):

        def encode(samples: np.ndarray, level: int = level) -> bytes:
            buffer = io.BytesIO()
            soundfile.write(
                buffer, samples, sample_rate_hz, format="FLAC", subtype="PCM_16", compression_level=level / 8
            )
            return buffer.getvalue()

        yield Codec("FLAC", f"level {level}", encode, lambda data: soundfile.read(io.BytesIO(data), dtype="int16")[0])


def head_bytes(data: bytes) -> int:
    """Bytes before the first frame of a FLAC file: a magic number and blocks with lengths and a last-block flag."""
    place, last = len(b"fLaC"), False
    while not last:
        last = bool(data[place] & 0x80)
        place += 4 + int.from_bytes(data[place + 1 : place + 4], "big")
    return place


def _differences(samples: np.ndarray) -> np.ndarray:
    return np.diff(samples, prepend=samples.dtype.type(0)).astype(np.int16)


def _sums(differences: np.ndarray) -> np.ndarray:
    return np.cumsum(differences, dtype=np.int16)


def _read(data: bytes, like: np.ndarray) -> np.ndarray:
    return np.frombuffer(data, np.int16)


def _write_apart(samples: np.ndarray) -> bytes:
    return _differences(samples).view(np.uint8).reshape(-1, 2).T.tobytes()


def _read_apart(data: bytes, like: np.ndarray) -> np.ndarray:
    return _sums(np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(2, -1).T).view(np.int16).ravel())


WRITINGS = (
    Writing("samples", np.ndarray.tobytes, _read),
    Writing("differences", lambda one: _differences(one).tobytes(), lambda data, like: _sums(_read(data, like))),
    Writing("low bytes of differences, then high ones", _write_apart, _read_apart),
)
"""Ways to write waveforms, int16 [samples], as bytes."""
