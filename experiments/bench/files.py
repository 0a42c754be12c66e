"""Damages pictures, sounds, films, texts and archives, and reads them as `omnijax prepare` does.

    python experiments/bench/files.py --count 10000

Each file is a real one of some format with random damage (`mutations.mutated`), or random bytes under its name. Its
header is probed, a modality is chosen that suits it, and its signals are read, in child processes with the limits of
`omnijax.data.reading`. Every file must come to an outcome: signals, or a reason in one line. No child may need more
time or memory than it may, and the reader must end with as many results as files. Undamaged files must be read. The
script prints a table, a JSON line for each failure, and a summary. Its exit status is 0 without failures.
"""

from __future__ import annotations

import argparse
import collections
import functools
import io
import json
import pathlib
import resource
import sys
import tarfile
import tempfile
import time
from typing import Any, NamedTuple

import av
import numpy as np
import PIL.Image
import soundfile
from mutations import mutated
from parts import add_part, pick

from omnijax.data.reading import BYTES, SECONDS, Failed, Reader
from omnijax.data.sources.folder.index import index_folder, kinds_of, opened
from omnijax.modalities import FROM_FILES

PICTURES = {
    "png": "RGB",
    "PNG": "I;16",
    "jpg": "RGB",
    "webp": "RGBA",
    "gif": "P",
    "tif": "L",
    "bmp": "RGB",
    "avif": "RGB",
}
SOUNDS = {"wav": "PCM_16", "WAV": "FLOAT", "flac": "PCM_24", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III", "opus": "OPUS"}
TOKENS = 1536
"""Of a signal, at most."""
SLACK = 2.0
"""Seconds that a file may take beyond its limit: the process that reads it is ended then."""


class Outcome(NamedTuple):
    """What became of a file: seconds, the most memory of the process in bytes, and the length of the signal."""

    seconds: float
    memory: int
    size: int


def seeds() -> dict[str, bytes]:
    """A small valid file of each format, by a name with its ending."""
    random, found = np.random.default_rng(0), {}
    for ending, mode in PICTURES.items():
        pixels = random.integers(0, 256, (24, 32, 3), np.uint8)
        picture = PIL.Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else None
        stream = io.BytesIO()
        (picture or PIL.Image.fromarray(pixels).convert(mode)).save(
            stream, format={"jpg": "JPEG", "tif": "TIFF"}.get(ending.lower(), ending.upper())
        )
        found[f"picture.{ending}"] = stream.getvalue()
    for ending, subtype in SOUNDS.items():
        stream, kind = io.BytesIO(), {"opus": "OGG"}.get(ending, ending.upper())
        tone = 0.3 * np.sin(np.arange(8000) / 9)
        soundfile.write(stream, tone, 16000 if ending != "opus" else 48000, format=kind, subtype=subtype)
        found[f"sound.{ending}"] = stream.getvalue()
    for ending, codec in (("mp4", "mpeg4"), ("mkv", "libx264")):
        stream = io.BytesIO()
        with av.open(stream, "w", format={"mkv": "matroska"}.get(ending, ending)) as film:
            video = film.add_stream(codec, rate=8)
            sound = film.add_stream("aac", rate=16000, layout="mono")
            video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
            for _ in range(8):
                frame = av.VideoFrame.from_ndarray(random.integers(0, 256, (24, 32, 3), np.uint8), format="rgb24")
                film.mux(video.encode(frame))
            film.mux(video.encode(None))
            for start in range(0, 16000, 1000):
                tone = (0.3 * np.sin(np.arange(start, start + 1000) / 9)).astype(np.float32)[None]
                frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16000, start
                film.mux(sound.encode(frame))
            film.mux(sound.encode(None))
        found[f"film.{ending}"] = stream.getvalue()
    found["text.txt"] = "Grüße, 世界\r\nline\n".encode() * 20
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("picture.png", "sound.wav"):
            member = tarfile.TarInfo(f"a.{name.partition('.')[2]}")
            member.size = len(found[name])
            archive.addfile(member, io.BytesIO(found[name]))
    return found | {"shard.tar": stream.getvalue()}


def read_file(folder: pathlib.Path, name: str) -> Outcome:
    """Probes and reads a file by every kind of modality that reads its ending; all files of an archive."""
    began, size, place, names = time.perf_counter(), 0, folder, [name]
    if name.endswith(".tar"):
        place = (folder / name).parent
        names = [path for entry in index_folder(place).entries for path in entry.files.values()]
    for path in names:
        for kind in kinds_of(path):
            with opened(place, path) as stream:
                header = kind.probe(stream)
            choices = next(choices for choices in FROM_FILES if choices[0] is kind)
            suited = [choice.suited([header], TOKENS) for choice in choices]
            modality = next((one for one, lost in suited if not lost), suited[-1][0])
            with opened(place, path) as stream:
                content = io.BytesIO(stream.read())
            signal = modality.windows(content, modality.seconds) if modality.seconds else modality.read(content)
            size += len(signal)
    return Outcome(time.perf_counter() - began, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, size)


def trial(folder: pathlib.Path, number: int, seed: int, known: dict[str, bytes]) -> tuple[str, str]:
    """Writes a damaged file; returns its name and what was done to it. Archives have a folder for themselves."""
    random = np.random.default_rng([seed, number])
    format_ = [*known][number % len(known)]
    kind, content = mutated(known[format_], random)
    if random.random() < 0.05:
        kind, content = "random bytes", random.bytes(int(random.integers(0, 3000)))
    place = folder / f"{number:06d}" if format_.endswith(".tar") else folder
    place.mkdir(exist_ok=True)
    path = place / (format_ if format_.endswith(".tar") else f"{number:06d}.{format_.partition('.')[2]}")
    path.write_bytes(known[format_] if content is None else content)  # a file that is gone has no outcome
    return path.relative_to(folder).as_posix(), kind


def failures(numbers: list[int], seed: int) -> list[dict[str, Any]]:
    """Reads damaged files; returns those with a wrong outcome, and prints how many came to which."""
    known, table, found = seeds(), collections.Counter[tuple[str, str]](), []
    with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory)
        files = [trial(folder, number, seed, known) for number in numbers]
        whole = folder / "whole"
        for name, content in known.items():
            path = whole / name.replace(".", "/x.")  # archives are read with all that lies beside them
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        with Reader(functools.partial(read_file, folder)) as reader:
            names = [f"whole/{name.replace('.', '/x.')}" for name in known]
            for name, result in zip(names, reader.read(names), strict=True):
                if isinstance(result, Failed):
                    found.append({"file": name, "failure": f"it is whole, and refused: {result.reason}"})
                    print(json.dumps(found[-1]), flush=True)
            results = list(reader.read([name for name, _ in files]))
            idle = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    if len(results) != len(files):
        found.append({"failure": f"{len(results)} results of {len(files)} files"})
    most_seconds = most_bytes = 0.0
    for number, (name, kind), result in zip(numbers, files, results, strict=False):
        wrong = ""
        if isinstance(result, Failed):
            if not result.reason or "\n" in result.reason or len(result.reason) > 500:
                wrong = f"a reason is one line: {result.reason!r}"
            told = next((word for word in ("takes over", "ended", "GiB") if word in result.reason), "refused")
        else:
            told, most_seconds, most_bytes = "read", max(most_seconds, result.seconds), max(most_bytes, result.memory)
            if result.seconds > SECONDS + SLACK or result.memory > idle + BYTES * 1.5:
                wrong = f"{result.seconds:.1f} s, {result.memory / 1e9:.1f} GB"
        table[name.rpartition(".")[2], told] += 1
        if wrong:
            found.append({"number": number, "file": name, "mutation": kind, "failure": wrong})
            print(json.dumps(found[-1]), flush=True)
    for (ending, told), count in sorted(table.items()):
        print(f"{ending:>6} {told:<12} {count}")
    print(f"most seconds {most_seconds:.2f}, most memory {most_bytes / 1e9:.2f} GB")
    return found


def main() -> int:
    """Prints a summary; 1 if there is a failure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="files")
    parser.add_argument("--seed", type=int, default=0)
    add_part(parser)
    options = parser.parse_args()
    numbers = list(pick(range(options.count), options.part))
    found = failures(numbers, options.seed)
    print(json.dumps({"files": len(numbers), "failures": len(found)}))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
