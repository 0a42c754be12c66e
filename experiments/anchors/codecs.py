"""General compressors at their best setting. Several settings are tried, and every result is decoded again.

Settings are chosen by the result on the measured signals themselves, which favours the compressors.
"""

from __future__ import annotations

import dataclasses
import itertools
import lzma
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import brotli
import numpy as np
import zstandard

from omnijax.errors import PlatformError

Family = Literal["xz", "zstd", "brotli"]
FAMILIES: tuple[Family, ...] = get_args(Family)
_LARGEST_WINDOW = 24  # the largest window of brotli, as a power of two


@dataclasses.dataclass(frozen=True)
class Codec:
    """A compressor at one setting.

    Attributes:
        family: codecs of one family are tried together.
        setting: in words; may be empty.
        encode: signal -> bytes.
        decode: bytes -> signal.
    """

    family: str
    setting: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


@dataclasses.dataclass(frozen=True)
class Writing:
    """A way to write a signal as bytes.

    Attributes:
        name: in words.
        write: signal -> bytes.
        read: bytes, and a signal of the same shape -> signal.
    """

    name: str
    write: Callable[[Any], bytes]
    read: Callable[[bytes, Any], Any]


@dataclasses.dataclass(frozen=True)
class Best:
    """The best of several settings.

    Attributes:
        bits: int [n], of every signal.
        codec: at its best setting.
        writing: the best writing with it; None if the codec takes signals themselves.
    """

    bits: np.ndarray
    codec: Codec
    writing: Writing | None = None

    @property
    def told(self) -> str:
        """The writing and the setting, in words."""
        parts = [self.writing.name if self.writing else "", self.codec.setting]
        return ", ".join(part for part in parts if part)


def check(codec: Codec, wanted: Any, found: Any) -> None:
    """Compares a decoded signal with the original.

    Raises:
        PlatformError: they differ, so the codec isn't lossless.
    """
    # NumPy would treat bytes as text and ignore zeros at the end.
    same = wanted == found if isinstance(wanted, bytes) else np.array_equal(wanted, found)
    if not same:
        rule = "it must give back what it was given"
        raise PlatformError(f"{codec.family}, {codec.setting}", "another signal", rule, "take another version of it")


def encoded_bits(codec: Codec, signal: Any) -> int:
    """Bits of a signal. Every call checks that it decodes to the same signal.

    Raises:
        PlatformError: the codec isn't lossless.
    """
    data = codec.encode(signal)
    check(codec, signal, codec.decode(data))
    return 8 * len(data)


def best_of(codecs: Iterable[Codec], signals: Sequence[Any], writings: Sequence[Writing] = ()) -> Best:
    """The setting and the writing with the fewest bits over all signals. All signals get the same setting.

    Args:
        codecs: of signals, or of bytes if there are writings.
        signals: each one is compressed by itself.
        writings: ways to write a signal as bytes.

    Raises:
        PlatformError: a codec isn't lossless.
    """
    found = []
    for codec in codecs:
        for writing in writings or (None,):
            payloads = signals if writing is None else [writing.write(signal) for signal in signals]
            if writing is not None:
                for signal, payload in zip(signals, payloads, strict=True):
                    check(codec, signal, writing.read(payload, signal))
            bits = np.array([encoded_bits(codec, payload) for payload in payloads], np.int64)
            found.append(Best(bits, codec, writing))
    return min(found, key=lambda one: int(one.bits.sum()))


def best_after(codecs: Iterable[Codec], before: Any, signal: Any, writings: Sequence[Writing], most_bytes: int) -> Best:
    """The fewest bits of a signal after another signal that encoder and decoder both know.

    For zstd the known signal is the dictionary. For xz and brotli the bits are those of both signals together, minus
    those of the known one.

    Args:
        codecs: of bytes; all are tried.
        before: the known signal, of the same kind.
        signal: the measured signal.
        writings: ways to write both as bytes.
        most_bytes: only this many last bytes of the known signal are used.

    Raises:
        PlatformError: a codec isn't lossless.
    """
    found = []
    for codec, writing in itertools.product(codecs, writings):
        known, payload = writing.write(before)[-most_bytes:], writing.write(signal)
        if codec.family == "zstd":
            dictionary = zstandard.ZstdCompressionDict(known, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            bits = encoded_bits(zstd(dictionary), payload)
        else:
            bits = encoded_bits(codec, known + payload) - encoded_bits(codec, known)
        found.append(Best(np.array([bits]), codec, writing))
    return min(found, key=lambda one: int(one.bits.sum()))


def best_with_dictionary(before: Sequence[bytes], signals: Sequence[bytes]) -> Best | None:
    """Bits by zstd with a dictionary that was trained on known signals; None if these are too few for training.

    Raises:
        PlatformError: zstd isn't lossless.
    """
    found = []
    for kibibytes in (1, 2, 4, 8, 16, 64):
        try:
            dictionary = zstandard.train_dictionary(1024 * kibibytes, list(before))
        except zstandard.ZstdError:
            continue
        codec = dataclasses.replace(zstd(dictionary), setting=f"level 22, dictionary of {kibibytes} KiB")
        found.append(Best(np.array([encoded_bits(codec, signal) for signal in signals], np.int64), codec))
    return min(found, key=lambda one: int(one.bits.sum()), default=None)


def settings(family: Family, text: bool = False) -> Iterator[Codec]:
    """The settings of a family that are tried. Brotli has one more for text."""
    if family == "zstd":
        yield zstd()
    elif family == "brotli":
        yield _brotli(brotli.MODE_GENERIC, "generic")
        if text:
            yield _brotli(brotli.MODE_TEXT, "text")
    else:
        yield from (_lzma(*bits) for bits in ((3, 0, 2), (0, 0, 0), (4, 0, 0), (0, 4, 4)))


def zstd(dictionary: zstandard.ZstdCompressionDict | None = None) -> Codec:
    """The compressor zstd at its highest level, with bare frames: no magic number, size or checksum."""
    bare = zstandard.FORMAT_ZSTD1_MAGICLESS

    def encode(data: bytes) -> bytes:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            22, source_size=len(data), format=bare, write_content_size=False, write_checksum=False, write_dict_id=False
        )
        return zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(data)

    def decode(data: bytes) -> bytes:
        reader = zstandard.ZstdDecompressor(dict_data=dictionary, format=bare, max_window_size=2**31)
        return reader.decompressobj().decompress(data)

    return Codec("zstd", "level 22", encode, decode)


def _lzma(literal: int, position: int, alignment: int) -> Codec:
    """The compressor of xz without its container, whose header and footer are larger than a small signal."""

    def filters(size: int) -> list[dict[str, int]]:
        window = max(4096, 1 << math.ceil(math.log2(max(size, 1))))
        one = {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}
        return [one | {"lc": literal, "lp": position, "pb": alignment}]

    def encode(data: bytes) -> bytes:
        return lzma.compress(data, lzma.FORMAT_RAW, filters=filters(len(data)))

    def decode(data: bytes) -> bytes:
        return lzma.decompress(data, lzma.FORMAT_RAW, filters=filters(2**27))

    return Codec("xz", f"raw LZMA with lc {literal}, lp {position}, pb {alignment}", encode, decode)


def _brotli(mode: int, name: str) -> Codec:
    def encode(data: bytes) -> bytes:
        window = min(_LARGEST_WINDOW, max(10, math.ceil(math.log2(len(data) + 17))))
        return bytes(brotli.compress(data, mode=mode, quality=11, lgwin=window))

    return Codec("brotli", f"quality 11, {name}", encode, lambda data: bytes(brotli.decompress(data)))
