"""Reads and writes films: MP4, WebM and what else FFmpeg knows, through PyAV."""

from __future__ import annotations

import fractions
import itertools
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from etils import epy
from jaxtyping import Float32, UInt8

from omnijax.errors import DataError

with epy.lazy_imports():  # extras: only films need them
    import av
    from PIL import Image

MOST_PIXELS = 2**24
"""Most pixels of a frame."""


def probe_film(name: str, stream: BinaryIO) -> dict[str, int | float]:
    """Width and height in pixels as it is shown, frames per second, seconds, and whether there is sound.

    Raises a `DataError` if it is no film, or if a frame of it has more than 2^24 pixels.
    """
    with _opened(name, stream) as film:
        video = _video(name, film)
        seconds = float(film.duration or 0) / 1e6
        rate = float(video.average_rate or 0)
        sound, size = int(bool(film.streams.audio)), (video.width, video.height)
        turned = any(frame.rotation % 180 for _, frame in itertools.islice(_decoded(name, film, video), 1))
        width, height = size[::-1] if turned else size
        return {"width": width, "height": height, "rate_hz": rate, "seconds": seconds, "sound": sound}


def read_frames(
    name: str, stream: BinaryIO, rate_hz: float, size: tuple[int, int], start: float, most: int
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Frames of a film on a grid of times, `rate_hz` a second from `start` on.

    Each time of the grid shows the last frame that was presented at or before it; times are those that the film says,
    so that films of a variable rate are right. It ends with the film. Frames are turned as they are shown, and resized
    by the mean over the area of a pixel. Raises a `DataError` if it is no film, is damaged, or has no frame from
    `start` on.

    Args:
        name: name of the modality, for errors.
        stream: the file.
        rate_hz: frames per second of the result.
        size: width and height of the result in pixels.
        start: seconds from the start of the film.
        most: most frames of the result.
    """
    found: list[UInt8[np.ndarray, "height width 3"]] = []
    with _opened(name, stream) as film:
        video = _video(name, film)
        zero = float((video.start_time or 0) * video.time_base)
        shown, end = None, 0.0
        for time, frame in _decoded(name, film, video):
            while len(found) < most and shown is not None and start + len(found) / rate_hz < time - zero - 1e-6:
                found.append(_small(shown, size))
            shown, end = frame, time - zero + 1 / float(video.average_rate or rate_hz)
            if len(found) == most:
                return np.stack(found)
        while len(found) < most and shown is not None and start + len(found) / rate_hz < end - 1e-6:
            found.append(_small(shown, size))
    if not found:
        raise DataError(name, f"{start:g} seconds", "the film must have a frame there", "give another film")
    return np.stack(found)


def read_track(
    name: str, stream: BinaryIO, start: float, seconds: float
) -> tuple[Float32[np.ndarray, "samples channels"], int, int]:
    """The sound of a film from a time on, on the clock of its frames, its rate, and channels; silent where it has none.

    Raises a `DataError` if it is no film, is damaged, or has no sound.
    """
    with _opened(name, stream) as film:
        if not film.streams.audio:
            raise DataError(name, "file", "the film has no sound", "give another film")
        track = film.streams.audio[0]
        rate, channels = int(track.rate), int(track.channels)
        videos = film.streams.video
        zero = float((videos[0].start_time or 0) * videos[0].time_base) if videos else 0.0
        samples = np.zeros((math.ceil(seconds * rate), channels), np.float32)
        resampler = av.AudioResampler(format="fltp", layout=track.layout, rate=rate)
        for time, frame in _decoded(name, film, track):
            for part in resampler.resample(frame):
                values = part.to_ndarray().T
                place = round((time - zero - start) * rate)
                first, last = max(place, 0), min(place + len(values), len(samples))
                if first < last:
                    samples[first:last] = values[first - place : last - place]
            if time - zero > start + seconds:
                break
    return samples, rate, channels


def write_film(frames: UInt8[np.ndarray, "frames height width 3"], rate_hz: float, stream: BinaryIO) -> None:
    """Writes an MP4 film of the same pixels: H.264 in RGB without loss, which players show, but not all browsers."""
    with av.open(stream, "w", format="mp4") as film:
        rate = fractions.Fraction(rate_hz).limit_denominator(1000)
        video = film.add_stream("libx264rgb", rate=rate, options={"qp": "0", "preset": "fast"})
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "rgb24"
        for values in frames:
            film.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format="rgb24")))
        film.mux(video.encode())


def _opened(name: str, stream: BinaryIO) -> Any:
    try:
        return av.open(stream)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        why = str(error).replace(repr(stream), "it")
        raise DataError(name, "file", f"it can't be read ({why})", "give a film, for example an MP4 file") from error


def _video(name: str, film: Any) -> Any:
    if not film.streams.video:
        raise DataError(name, "file", "it has no pictures", "give a film")
    video = film.streams.video[0]
    if video.width * video.height > MOST_PIXELS:
        size = f"{video.width} × {video.height} pixels"
        raise DataError(name, size, f"a frame has at most {MOST_PIXELS:,} pixels", "make it smaller")
    video.thread_type = "NONE"
    return video


def _decoded(name: str, film: Any, stream: Any) -> Iterator[tuple[float, Any]]:
    """The frames of a stream with their times in seconds, in order."""
    last = -math.inf
    try:
        for frame in film.decode(stream):
            if frame.pts is None:
                continue
            time = float(frame.pts * frame.time_base)
            if time > last:
                yield time, frame
                last = time
    except (av.error.FFmpegError, ValueError) as error:
        raise DataError(name, "file", f"it is damaged ({error})", "give a complete film") from error


def _small(frame: Any, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    # FFmpeg's display matrix, which phones write: degrees counterclockwise.
    picture = Image.fromarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
    return np.asarray(picture.resize(size, Image.Resampling.BOX))
