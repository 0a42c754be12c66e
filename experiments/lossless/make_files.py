"""Makes a folder of photographs, sounds and texts: what the experiments with lossless fragments train on.

    python experiments/lossless/make_files.py [FOLDER] [--edge 32] [--fields picture text] [--data.packages DIRECTORY]

The files come from packages, which are downloaded by apt-get, or found in a directory. The folder has a table, as
`omnijax prepare` reads it, with a row for each crop, sound and text.

Photographs are halved, so that nothing of JPEG's blocks is left that a model or a codec could use. Sounds were never
lossy: they become one channel of 8 bits. Texts are sayings and jokes in nine languages, each one once. What is held out
is held out as a whole: a photograph, a sound, a text.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import pathlib
import sys
from collections.abc import Collection, Iterator

import numpy as np
import PIL.Image
import rich.progress
import soundfile
import soxr

from omnijax.errors import OmnijaxError
from omnijax.files import write_atomically
from omnijax.modalities.sound_file import write_samples
from omnijax.source import TEST, TRAIN, VALIDATION

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from fetch_packages import Package, gather, members

MATE = Package("deb", "mate-backgrounds", "1.26.0-1")
PLASMA = Package("deb", "plasma-workspace-wallpapers", "4:5.27.5-2")
SONIC_PI = Package("deb", "sonic-pi-samples", "3.2.2~repack-8")
FORTUNES = {"en": "fortunes"} | {name: f"fortunes-{name}" for name in ("br", "cs", "de", "es", "it", "pl", "ru", "zh")}
TEXTS = {language: Package("deb", name, "any") for language, name in FORTUNES.items()}
PACKAGES = {"picture": [MATE, PLASMA], "sound": [SONIC_PI], "text": [*TEXTS.values()]}

PHOTOGRAPHS = {
    TRAIN: (
        *("Aqua", "Blinds", "Dune", "FreshFlower", "Garden", "LadyBird", "RainDrops", "Wood", "YellowFlower"),
        *("ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "Kite", "OneStandsOut"),
    ),
    VALIDATION: ("GreenMeadow", "TwoWings", "BytheWater", "Grey"),
    TEST: ("Storm", "FallenLeaf", "Path", "summer_1am"),
}
"""Names of the wallpapers that are photographs, by split. The other wallpapers are drawings, and aren't used."""
EDGE, SQUARE = 32, 64
"""Edges in pixels: of a crop by default, and of the squares that are cut into crops for validation and test."""
CROPS, SQUARES = 800, 24
"""Crops of `EDGE` of each photograph for training; squares of each one for validation and test."""
RATE_HZ, SAMPLES = 16_000, 1024
MOST_BYTES = 256
HELD_OUT = {"sound": 10, "text": 100}
"""One sound or text in so many is for test, and another one for validation."""


def make(
    folder: pathlib.Path, packages: str = "", seed: int = 0, edge: int = EDGE, fields: Collection[str] = tuple(PACKAGES)
) -> None:
    """Fills a folder.

    Args:
        folder: new.
        packages: directory with the files of `PACKAGES`; "" downloads them, beside the folder.
        seed: draws the places of the crops.
        edge: pixels of a crop; it divides `SQUARE`. Smaller crops are more, of as many pixels in all.
        fields: those that are made.
    """
    with rich.progress.Progress() as bars:
        bar = bars.add_task("Packages and files", total=1.0)
        kept = folder.parent / "packages"
        wanted = [package for field, own in PACKAGES.items() if field in fields for package in own]
        found = gather(wanted, packages, kept, lambda share: bars.update(bar, completed=share / 2))
        paths = dict(zip(wanted, found, strict=True))
        rows = list(_crops(folder, paths[MATE], paths[PLASMA], seed, edge)) if "picture" in fields else []
        bars.update(bar, completed=0.8)
        rows += _sounds(folder, paths[SONIC_PI]) if "sound" in fields else ()
        for language, package in TEXTS.items() if "text" in fields else ():
            rows += _texts(folder, language, paths[package])
        table = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(folder / "metadata.jsonl", table)
        bars.update(bar, completed=1.0)


def split_of(field: str, content: bytes) -> str:
    """The split of a sound or a text, by its digest."""
    number = int.from_bytes(hashlib.sha256(content).digest()[:8]) % HELD_OUT[field]
    return {0: TEST, 1: VALIDATION}.get(number, TRAIN)


def _crops(
    folder: pathlib.Path, mate: pathlib.Path, plasma: pathlib.Path, seed: int, edge: int
) -> Iterator[dict[str, str]]:
    """Table rows of the crops. For validation and test, the crops of a square follow each other."""
    photographs = dict[str, np.ndarray]()
    for path in (mate, plasma):
        for name, content in members(path, lambda one: "/mate/nature/" in one or "/contents/images/2560x1600" in one):
            stem = name.split("/")[-4] if path is plasma else pathlib.PurePath(name).stem
            with PIL.Image.open(io.BytesIO(content)) as picture:
                photographs[stem] = np.asarray(picture.convert("RGB").reduce(2))
    random = np.random.default_rng((seed, 1))
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for split, names in PHOTOGRAPHS.items():
        whole, count = (edge, CROPS * EDGE**2 // edge**2) if split == TRAIN else (SQUARE, SQUARES)
        for name in names:
            pixels = photographs[name]
            for number, (top, left) in enumerate(random.integers(0, np.array(pixels.shape[:2]) - whole, (count, 2))):
                square = pixels[top : top + whole, left : left + whole]
                blocks = square.reshape(whole // edge, edge, whole // edge, edge, 3).swapaxes(1, 2)
                for part, crop in enumerate(blocks.reshape(-1, edge, edge, 3)):
                    path = f"pictures/{name}-{number:03}-{part}.png"
                    PIL.Image.fromarray(crop).save(folder / path)
                    yield {"picture_file_name": path, "split": split}


def _sounds(folder: pathlib.Path, path: pathlib.Path) -> Iterator[dict[str, str]]:
    """Table rows of the sounds in stretches of `SAMPLES`; a shorter rest at the end of a sound is dropped."""
    (folder / "sounds").mkdir(parents=True, exist_ok=True)
    for name, content in sorted(members(path, lambda one: one.endswith(".flac"))):
        samples, rate = soundfile.read(io.BytesIO(content), always_2d=True)
        mono = soxr.resample(samples.mean(axis=1), rate, RATE_HZ)
        mono *= min(1.0, 127 / 128 / max(np.abs(mono).max(), 1e-9))
        values = np.rint(mono * 128 + 128).astype(np.uint8)
        whole = values[: len(values) // SAMPLES * SAMPLES].reshape(-1, SAMPLES)
        for number, stretch in enumerate(whole):
            there = f"sounds/{pathlib.PurePath(name).stem}-{number:03}.wav"
            with (folder / there).open("wb") as file:
                write_samples(stretch[:, None], RATE_HZ, file)
            yield {"sound_file_name": there, "split": split_of("sound", content)}


def _texts(folder: pathlib.Path, language: str, path: pathlib.Path) -> Iterator[dict[str, str]]:
    """Table rows of the texts of a package, without duplicates. Lines of `%` separate the texts in its UTF-8 files."""
    (folder / "texts" / language).mkdir(parents=True, exist_ok=True)
    there, seen = "./usr/share/games/fortunes/", set[str]()
    for _, content in sorted(members(path, lambda one: one.startswith(there) and not one.endswith((".dat", ".u8")))):
        try:
            sayings = content.decode().replace("\r", "").split("\n%\n")
        except UnicodeDecodeError:
            continue
        for saying in filter(None, map(str.strip, sayings)):
            split = split_of("text", saying.encode())
            for part in map(str.strip, stretches(saying)):
                if part and part not in seen:
                    name = f"texts/{language}/{len(seen):05}.txt"
                    seen.add(part)
                    (folder / name).write_text(part, encoding="utf-8")
                    yield {"text_file_name": name, "split": split}


def stretches(text: str, most: int = MOST_BYTES) -> Iterator[str]:
    """A text in parts of at most `most` bytes, which end with a line or before a space if they can."""
    while text:
        part = text.encode()[:most].decode(errors="ignore")
        if len(part) < len(text):
            near = (part.rfind("\n") + 1, part.rfind(" "))
            part = part[: next((end for end in near if end > 0), len(part))]
        yield part
        text = text[len(part) :]


def main() -> None:
    """Makes the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, nargs="?", default="data/lossless.files", help="%(default)s")
    edge = f"pixels of a crop: a divisor of {SQUARE}; %(default)s by default"
    parser.add_argument("--edge", type=int, choices=(8, 16, 32, 64), default=EDGE, help=edge)
    parser.add_argument(
        "--fields", nargs="+", choices=PACKAGES, default=PACKAGES, help="those that are made, all by default"
    )
    where = "where the packages are; by default they are downloaded"
    parser.add_argument("--data.packages", dest="packages", default="", metavar="DIRECTORY", help=where)
    arguments = parser.parse_args()
    try:
        make(arguments.folder, arguments.packages, edge=arguments.edge, fields=arguments.fields)
    except OmnijaxError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
