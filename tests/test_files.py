"""Picture and sound files of every kind are read as they look or sound, or refused."""

from __future__ import annotations

import contextlib
import functools
import io
import pathlib
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest
import soundfile

from omnijax.errors import DataError
from omnijax.modalities import Picture, Speech

LEVELS = 16
DIGITS = Picture("image", height=8, width=10, levels=LEVELS)
COLOUR = Picture("photo", height=8, width=10, channels=3)
LEVEL = np.random.default_rng(0).integers(0, LEVELS, (8, 10)).astype(np.uint8)
LEVEL[0, :2] = 0, LEVELS - 1
GREY = LEVEL * 17
WHITE = np.full_like(GREY, 255)


def saved(pixels: Any, format: str = "PNG", mode: str = "", **options: Any) -> bytes:
    """The content of a picture file, with the pixels converted to a mode of Pillow first."""
    picture = PIL.Image.fromarray(np.asarray(pixels))
    picture = picture.convert(mode) if mode else picture
    picture.save(file := io.BytesIO(), format, **options)
    return file.getvalue()


def png_of_16_bits(planes: int, colour_type: int, clear: bool = False) -> bytes:
    """The digit as an opaque PNG of 16 bits a channel. Pillow can't write these in colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    values = np.repeat((GREY.astype(">u2") * 257)[..., None], planes, axis=2)
    if colour_type & 4:
        values[..., -1] = 2**16 - 1
    header = struct.pack(">IIBBBBB", GREY.shape[1], GREY.shape[0], 16, colour_type, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    clear_colour = chunk(b"tRNS", bytes(6)) * clear
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + clear_colour
    return start + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def turned() -> bytes:
    """The digit lying on its side, and an EXIF tag that says so."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return saved(np.rot90(GREY), exif=exif)


def clear_palette() -> bytes:
    """A palette of white only; the opacity of its entries shows the digit."""
    picture = PIL.Image.frombytes("P", LEVEL.shape[::-1], LEVEL.tobytes())
    picture.putpalette([255, 255, 255] * LEVELS)
    picture.save(file := io.BytesIO(), "PNG", transparency=bytes(range(0, 256, 17)))
    return file.getvalue()


RGB = np.dstack([GREY] * 3)
SAME: dict[str, Callable[[], bytes]] = {
    "grey": lambda: saved(GREY),
    "colour": lambda: saved(RGB),
    "palette": lambda: saved(GREY, mode="P"),
    "CMYK": lambda: saved(RGB, "TIFF", "CMYK"),
    "16-bit grey": lambda: saved(GREY.astype(np.uint16) * 257),
    "16-bit TIFF": lambda: saved(GREY.astype(np.uint16) * 257, "TIFF"),
    "32-bit integers up to 65,535": lambda: saved(GREY.astype(np.int32) * 257, "TIFF"),
    "floats": lambda: saved((GREY / 255).astype(np.float32), "TIFF"),
    "16-bit colour": lambda: png_of_16_bits(3, 2),
    "16-bit colour, opaque": lambda: png_of_16_bits(4, 6),
    "16-bit grey, opaque": lambda: png_of_16_bits(2, 4),
    "opaque": lambda: saved(np.dstack([RGB, WHITE])),
    "white ink in colour": lambda: saved(np.dstack([WHITE] * 3 + [GREY])),
    "white ink in grey": lambda: saved(np.dstack([WHITE, GREY])),
    "white ink in a palette": clear_palette,
    "orientation": turned,
    "WebP": lambda: saved(RGB, "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", SAME)
def test_a_picture_is_read_as_it_looks(kind: str) -> None:
    file = SAME[kind]()
    np.testing.assert_array_equal(DIGITS.read(io.BytesIO(file)), LEVEL)
    colour = COLOUR.read(io.BytesIO(file))
    np.testing.assert_array_equal(colour, np.dstack([LEVEL * 17] * 3))


def test_black_and_white() -> None:
    bits = LEVEL > 7
    np.testing.assert_array_equal(DIGITS.read(io.BytesIO(saved(bits))), bits * (LEVELS - 1))


def test_transparent_parts_show_the_background() -> None:
    clear = saved(np.dstack([GREY, 0 * GREY]))
    for background in (0, 5, LEVELS - 1):
        found = Picture("image", height=8, width=10, levels=LEVELS, background=background).read(io.BytesIO(clear))
        np.testing.assert_array_equal(found, np.full_like(LEVEL, background))
    keyed = saved(RGB, transparency=(255, 255, 255))  # one colour is transparent
    expected = np.where(LEVEL == LEVELS - 1, 0, LEVEL)
    np.testing.assert_array_equal(DIGITS.read(io.BytesIO(keyed)), expected)


def test_opacity_is_the_last_of_2_or_4_channels() -> None:
    photo = np.random.default_rng(1).integers(0, 256, (8, 10, 4)).astype(np.uint8)
    found = Picture("photo", height=8, width=10, channels=4).read(io.BytesIO(saved(photo)))
    np.testing.assert_array_equal(found, photo)
    found = Picture("photo", height=8, width=10, channels=2).read(io.BytesIO(saved(GREY)))
    np.testing.assert_array_equal(found, np.dstack([GREY, WHITE]))


def test_sixteen_bits_stay_sixteen_bits() -> None:
    deep = np.random.default_rng(2).integers(0, 2**16, (8, 10)).astype(np.uint16)
    modality = Picture("scan", height=8, width=10, levels=2**16)
    np.testing.assert_array_equal(modality.read(io.BytesIO(saved(deep))), deep)


def test_a_large_picture_is_resized_to_the_same_levels() -> None:
    zoomed = saved(GREY.repeat(30, axis=0).repeat(30, axis=1))
    np.testing.assert_array_equal(DIGITS.read(io.BytesIO(zoomed)), LEVEL)


def animation() -> bytes:
    return saved(GREY, "GIF", save_all=True, append_images=[PIL.Image.fromarray(WHITE)])


def floats(value: float) -> bytes:
    values = (GREY / 255).astype(np.float32)
    values[3, 3] = value
    return saved(values, "TIFF")


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "animation": (animation, "2 pictures.*must hold one"),
    "not a number": (lambda: floats(np.nan), "nan.*finite numbers in 0 … 1"),
    "infinite": (lambda: floats(np.inf), "inf.*finite numbers in 0 … 1"),
    "brighter than white": (lambda: floats(1.5), "1.5.*finite numbers in 0 … 1"),
    "32-bit integers": (lambda: saved(GREY.astype(np.int32) * 2**20, "TIFF"), "numbers in 0 … 65535"),
    "16 bits with a transparent level": (
        lambda: saved(GREY.astype(np.uint16) * 257, transparency=0),
        "transparent level of a picture",
    ),
    "Lab colours": (lambda: saved(RGB, "TIFF", "LAB"), "mode LAB.*the mode must be one of"),
    "too many pixels": (lambda: saved(np.zeros((9000, 9000), bool)), "9000 × 9000 pixels.*at most 67,108,864"),
    "a bomb": (lambda: saved(np.zeros((14000, 14000), bool)), "can't be read"),
    "empty": (lambda: b"", "can't be read"),
    "text": (lambda: b"hello\n", "can't be read"),
    "cut": (lambda: saved(GREY)[:-30], "can't be read"),
    "16-bit TIFF, 0 is white": (lambda: with_tag(262, 0), "16 bits, 0 is white"),
    "12-bit TIFF": (lambda: with_tag(258, 12), "12 bits|can't be read"),
    "signed TIFF": (lambda: tiff(signed=True), "16 bits, signed"),
    "16-bit colour with a transparent level": (lambda: png_of_16_bits(3, 2, clear=True), "transparent level"),
}


def tiff(signed: bool = False) -> bytes:
    """The digit as a TIFF of 16 bits."""
    return saved(GREY.astype(np.uint16) * 257, "TIFF", tiffinfo={339: 2 if signed else 1})


def with_tag(tag: int, value: int) -> bytes:
    """A TIFF of 16 bits in which a short tag has another value."""
    file = bytearray(tiff())
    place = file.index(struct.pack("<HHI", tag, 3, 1))
    file[place + 8 : place + 10] = struct.pack("<H", value)
    return bytes(file)


@pytest.mark.parametrize("kind", REFUSED)
def test_animations_and_unreadable_pictures_are_refused(kind: str) -> None:
    make, rule = REFUSED[kind]
    with pytest.raises(DataError, match=rule):
        DIGITS.read(io.BytesIO(make()))


def test_a_flipped_bit_changes_no_pixel() -> None:
    file, same = saved(GREY), 0
    for place in range(8 * len(file)):
        flipped = bytearray(file)
        flipped[place // 8] ^= 1 << place % 8
        with contextlib.suppress(DataError):
            np.testing.assert_array_equal(DIGITS.read(io.BytesIO(bytes(flipped))), LEVEL)
            same += 1
    assert same < 100


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, TypeError, AttributeError])
def test_whatever_pillow_raises_is_an_error_of_the_file(error: type[Exception], monkeypatch) -> None:
    def fail(self: PIL.Image.Image) -> None:
        raise error("decoder error")

    file = saved(GREY)
    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", fail)
    with pytest.raises(DataError, match="can't be read .decoder error"):
        DIGITS.read(io.BytesIO(file))


def test_16_bit_colour_is_refused_for_more_than_256_levels() -> None:
    with pytest.raises(DataError, match="8 bits a channel"):
        Picture("scan", height=8, width=10, channels=3, levels=1000).read(io.BytesIO(png_of_16_bits(3, 2)))


# ---------------------------------------------------------------------- sounds

RATE = 11025
SPEECH = Speech(sample_rate_hz=RATE)
WAVE = 0.6 * np.sin(np.cumsum(np.linspace(0.02, 0.9, 6000))) * np.linspace(0.2, 1, 6000)


def sound(samples: Any = WAVE, rate: int = RATE, subtype: str = "PCM_16", format: str = "WAV") -> bytes:
    soundfile.write(file := io.BytesIO(), samples, rate, subtype=subtype, format=format)
    return file.getvalue()


def with_rate(rate: int) -> bytes:
    """A WAV file whose header states this rate, in Hz."""
    file = sound()
    return file[:24] + struct.pack("<II", rate, 0) + file[32:]


def with_bytes(count: int) -> bytes:
    """A WAV file whose header announces so many bytes of sound."""
    file = sound()
    place = file.index(b"data") + 4
    return file[:place] + struct.pack("<I", count) + file[place + 4 :]


HEARD = {
    "8 bits": (functools.partial(sound, subtype="PCM_U8"), 0.01),
    "16 bits": (sound, 1e-4),
    "24 bits": (functools.partial(sound, subtype="PCM_24"), 1e-6),
    "32 bits": (functools.partial(sound, subtype="PCM_32"), 1e-6),
    "floats": (functools.partial(sound, subtype="FLOAT"), 1e-6),
    "doubles": (functools.partial(sound, subtype="DOUBLE"), 1e-6),
    "loud floats": (functools.partial(sound, WAVE * 3, subtype="FLOAT"), 1e-6),
    "µ-law": (functools.partial(sound, subtype="ULAW"), 0.03),
    "FLAC": (functools.partial(sound, format="FLAC"), 1e-4),
    "stereo": (functools.partial(sound, np.stack([WAVE, WAVE], 1)), 1e-4),
    "a pipe": (lambda: with_bytes(2**32 - 1), 1e-4),
}


@pytest.mark.parametrize("kind", HEARD)
def test_a_sound_is_read_as_it_sounds(kind: str) -> None:
    make, tolerance = HEARD[kind]
    scale = 3 if kind == "loud floats" else 1
    found = SPEECH.read(io.BytesIO(make()))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found / scale, WAVE, atol=tolerance)


def test_sounds_of_telephones_are_read() -> None:
    file = sound(np.sin(np.arange(8000) / 5) / 2, 8000, "GSM610")
    assert len(SPEECH.read(io.BytesIO(file))) == pytest.approx(RATE, rel=0.05)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 999_983])
def test_every_rate_keeps_the_pitch(rate: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate // 2) / rate)
    found = SPEECH.read(io.BytesIO(sound(tone, rate)))
    assert abs(len(found) - RATE / 2) <= 1
    assert np.argmax(np.abs(np.fft.rfft(found))) * RATE / len(found) == pytest.approx(440, abs=2)


def bad(value: float) -> bytes:
    samples = WAVE.copy()
    samples[1000] = value
    return sound(samples, subtype="DOUBLE")


REFUSED_SOUNDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "no samples": (functools.partial(sound, np.zeros(0)), "must last"),
    "one sample": (functools.partial(sound, np.ones(1)), "must last 0.0464 to"),
    "four seconds": (functools.partial(sound, np.tile(WAVE, 8)), "4.354 seconds.*to 1.552 seconds"),
    "silence": (functools.partial(sound, np.zeros(6000)), "all samples are 0"),
    "8-bit silence": (functools.partial(sound, np.zeros(6000), subtype="PCM_U8"), "all samples are 0"),
    "opposite channels": (functools.partial(sound, np.stack([WAVE, -WAVE], 1), subtype="FLOAT"), "cancel each other"),
    "not a number": (lambda: bad(np.nan), "sample 1000 is nan.*finite"),
    "infinite": (lambda: bad(np.inf), "sample 1000 is inf.*finite"),
    "huge": (lambda: bad(3e38), "sample 1000 is 3e\\+38.*finite"),
    "0 Hz": (lambda: with_rate(0), "it can't be read|sample rate must be"),
    "2^31 Hz": (lambda: with_rate(2**31 - 1), "2147483647 Hz.*sample rate must be"),
    "1 Hz": (lambda: with_rate(1), "1 Hz.*sample rate must be"),
    "empty": (lambda: b"", "can't be read"),
    "text": (lambda: b"<html>404</html>", "can't be read"),
    "half a file": (lambda: sound()[:6000], "it ends before its sound does"),
    "header that announces more": (lambda: with_bytes(20_000), "it ends before its sound does"),
    "almost silent": (functools.partial(sound, np.full(6000, 1e-60), subtype="DOUBLE"), "all samples are 0"),
    "header alone": (lambda: sound()[:30], "can't be read|must last"),
}


@pytest.mark.parametrize("kind", REFUSED_SOUNDS)
def test_silent_and_unreadable_sounds_are_refused(kind: str) -> None:
    make, rule = REFUSED_SOUNDS[kind]
    with pytest.raises(DataError, match=rule):
        SPEECH.read(io.BytesIO(make()))


READS = """
import io, sys
from omnijax.modalities import Picture, Speech
picture, speech = Picture("image"), Speech()
with open(sys.argv[1], "rb") as png, open(sys.argv[2], "rb") as wav:
    print(picture.read(png).shape, speech.read(wav).shape)
"""


def test_files_are_read_in_a_process_without_other_imports(tmp_path: pathlib.Path) -> None:
    png, wav = tmp_path / "a.png", tmp_path / "a.wav"
    PIL.Image.fromarray(np.full((8, 8), 200, np.uint8)).save(png)
    soundfile.write(wav, np.sin(np.arange(5000)), 11025)
    command = [sys.executable, "-c", READS, str(png), str(wav)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.stdout == "(8, 8) (5000,)\n", found.stderr
