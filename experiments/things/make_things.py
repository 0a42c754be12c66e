"""Makes a folder of 147 things: drawings of nine sets of emoji, photographs, captions and spoken captions.

The folder has a table, as `omnijax prepare` reads it, with a row for each picture and each clip. The field `signed` of
a picture is its English caption with the name of the artist. What is held out:

    artist   all drawings by one artist. Other drawings of the same things are for training.
    photo    all stamps (photographs and drawings of Tux Paint) of some things, which training has by other artists.
    word     recorded clips of some things, different ones in each language. Training has the synthesiser's clips.
    voice    all recorded clips in a language. Training has only the synthesiser in it.

Each kind has a part for validation and one for test.
"""

from __future__ import annotations

import collections
import csv
import io
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import PIL.Image
import soundfile
from fetch_packages import Package, gather, members, read_json
from leaks import copies

from omnijax.data.sources.spoken_digits.espeak import Synthesizer
from omnijax.errors import DataError
from omnijax.files import write_atomically
from omnijax.modalities.sound_file import read_sound
from omnijax.source import TEST, TRAIN, VALIDATION

TABLE = pathlib.Path(__file__).with_name("things.tsv")
STAMPS = Package("deb", "tuxpaint-stamps-default", "2022.06.04-1")
NAMES = Package("npm", "cldr-annotations-full", "48.2.0")
ARTISTS = {
    "noto": "1.2.9",
    "noto-v1": "1.2.5",
    "twemoji": "1.2.5",
    "openmoji": "1.2.29",
    "fluent-emoji-flat": "1.2.6",
    "fluent-emoji": "1.2.7",
    "emojione": "1.2.3",
    "fxemoji": "1.2.2",
    "streamline-emojis": "1.2.4",
}
"""Sets of emoji and their versions. All sets of a vendor are in the same split."""
DRAWINGS = {artist: Package("npm", f"@iconify-json/{artist}", version) for artist, version in ARTISTS.items()}
PACKAGES = [STAMPS, NAMES, *DRAWINGS.values()]
ARTIST = {"emojione": TEST, "fxemoji": VALIDATION}
"""Artists that are held out."""
VOICE = {"da": TEST, "el": VALIDATION}
"""Languages whose recorded voices are held out."""
SPOKEN = ("fr", "ru", "ro", "ca", "bg", "es", "be", "el", "da")
WRITTEN = ("en", *SPOKEN)
PHOTO_THINGS = {TEST: 37, VALIDATION: 18}
WORD_TENTHS = {TEST: (0, 1), VALIDATION: (2,)}
EDGE = 32
RATE_HZ = 16000
MOST_SECONDS = 1.8
_STAMPS = "./usr/share/tuxpaint/stamps/"
_SUPERSAMPLING = 4
_SILENCE = 0.03  # of the loudest window
_WINDOW_SECONDS, _MARGIN_WINDOWS = 0.01, 4


def read_things() -> dict[str, tuple[str, list[str]]]:
    """Code point and stamps of each thing; its first stamp names it."""
    found: dict[str, tuple[str, list[str]]] = {}
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            found.setdefault(row["thing"], (row["code_point"], []))[1].append(row["stamp"])
    return found


def make(folder: pathlib.Path, packages: str, voices: int, seed: int, progress: Callable[[float], None]) -> None:
    """Fills a folder.

    Args:
        folder: new.
        packages: folder with the files of `PACKAGES`; "" downloads them.
        voices: of the synthesiser, for each caption.
        seed: draws what is held out, and the voices.
        progress: told the share that is done.
    """
    stamps, names, *drawings = gather(PACKAGES, packages, folder.parent / "packages", lambda share: progress(share / 3))
    things = read_things()
    wanted = {stamp for _, (_, some) in things.items() for stamp in some}
    files = {name[len(_STAMPS) :]: content for name, content in members(stamps, lambda name: _stem(name) in wanted)}
    progress(0.4)
    captions = {stamp: _captions(files[f"{stamp}.txt"]) for stamp in wanted}
    of_thing = _of_things(things, captions, names)
    left_out = collections.Counter[str]()
    rows = [
        *_drawings(folder, things, of_thing, dict(zip(DRAWINGS, drawings, strict=True)), seed),
        *_stamps(folder, things, of_thing, captions, files, seed),
        *_clips(folder, things, captions, files, left_out),
        *_synthetic(folder, of_thing, voices, seed, left_out),
    ]
    twins = {known for _, known in copies(folder, rows)}
    left_out["pictures for training that are copies of held-out ones"] = len(twins)
    rows = [row for place, row in enumerate(rows) if place not in twins]
    for reason, count in (+left_out).items():
        print(f"left out: {count} {reason}")
    write_atomically(folder / "metadata.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    progress(1.0)


def _stem(name: str) -> str:
    """The stamp that a file belongs to."""
    return re.sub(r"(_desc(_[a-zA-Z@_]+)?)?\.[a-z]+$", "", name.removeprefix(_STAMPS))


def _captions(text: bytes) -> dict[str, str]:
    """The caption of a stamp in each language, in lower case, without punctuation at its end."""
    first, *rest = text.decode().splitlines()
    pairs = [("en", first), *(line.split(".utf8=", 1) for line in rest if ".utf8=" in line)]
    plain = {language: re.sub(r"\s+", " ", caption).strip(" .!").lower() for language, caption in pairs}
    return {language: plain[language] for language in WRITTEN if plain.get(language)}


def _of_things(
    things: Mapping[str, tuple[str, list[str]]], captions: Mapping[str, dict[str, str]], names: pathlib.Path
) -> dict[str, dict[str, str]]:
    """The caption of each thing in each language: that of its first stamp, otherwise its name in Unicode's tables."""
    tables = read_json(names, *(f"annotations/{language}/annotations.json" for language in WRITTEN))
    found: dict[str, dict[str, str]] = {}
    for thing, (code_point, (stamp, *_)) in things.items():
        sign = "".join(chr(int(part, 16)) for part in code_point.split("-"))
        told = {
            language: table["annotations"]["annotations"][sign]["tts"][0].lower()
            for language, table in zip(WRITTEN, tables, strict=True)
            if sign in table["annotations"]["annotations"]
        }
        found[thing] = told | captions[stamp]
    return found


def _drawings(
    folder: pathlib.Path,
    things: Mapping[str, tuple[str, list[str]]],
    of_thing: Mapping[str, dict[str, str]],
    paths: Mapping[str, pathlib.Path],
    seed: int,
) -> Iterator[dict[str, str]]:
    """Rows of the drawings by each artist, joined by code point, or by name."""
    sets = {artist: read_json(path, "icons.json", "chars.json", "info.json") for artist, path in paths.items()}
    random = np.random.default_rng((seed, 3))
    known: dict[str, set[str]] = collections.defaultdict(set)
    for _, characters, _ in sets.values():
        for code_point, name in characters.items():
            known[code_point.removesuffix("-fe0f")].add(name)
    for artist, (icons, _, information) in sets.items():
        by_letters = {_letters(name): name for name in (*icons.get("aliases", {}), *icons["icons"])}
        for thing, (code_point, _) in things.items():
            candidates = [thing, *sorted(known[code_point])]
            name = next((by_letters[_letters(one)] for one in candidates if _letters(one) in by_letters), None)
            if name is None:
                continue
            name = icons["icons"].get(name) and name or icons["aliases"][name]["parent"]
            path = f"drawings/{artist}/{thing.replace(' ', '_')}.png"
            size = [icons["icons"][name].get(side, icons.get(side, 16)) for side in ("width", "height")]
            _write_picture(folder / path, _rendered(_svg(icons["icons"][name]["body"], *size)))
            credit = f"{information['author']['name']}, {information['license']['title']}"
            split = f"{ARTIST[artist]}/artist" if artist in ARTIST else TRAIN
            texts = _thinned(of_thing[thing], split, random)
            yield _row("picture", path, thing, split, texts, artist, credit)


def _stamps(
    folder: pathlib.Path,
    things: Mapping[str, tuple[str, list[str]]],
    of_thing: Mapping[str, dict[str, str]],
    captions: Mapping[str, dict[str, str]],
    files: Mapping[str, bytes],
    seed: int,
) -> Iterator[dict[str, str]]:
    """Rows of the stamps, each with its own captions."""
    order = np.random.default_rng((seed, 1)).permutation(sorted(things)).tolist()
    held_out, random = dict[str, str](), np.random.default_rng((seed, 4))
    for side, count in PHOTO_THINGS.items():
        held_out |= dict.fromkeys(order[len(held_out) :][:count], f"{side}/photo")
    for thing, (_, stamps) in things.items():
        for stamp in stamps:
            content = files.get(f"{stamp}.png")
            picture = PIL.Image.open(io.BytesIO(content)) if content else _rendered(files[f"{stamp}.svg"].decode())
            path = f"stamps/{stamp.replace('/', '-')}.png"
            _write_picture(folder / path, picture)
            split = held_out.get(thing, TRAIN)
            texts = _thinned(of_thing[thing] | captions[stamp], split, random)
            yield _row("picture", path, thing, split, texts, "stamp", "Tux Paint, GPL-2")


def _clips(
    folder: pathlib.Path,
    things: Mapping[str, tuple[str, list[str]]],
    captions: Mapping[str, dict[str, str]],
    files: Mapping[str, bytes],
    left_out: collections.Counter[str],
) -> Iterator[dict[str, str]]:
    """Rows of the recorded clips that are no longer than `MOST_SECONDS`, without the silence around them."""
    for number, language in enumerate(SPOKEN):
        for place, (thing, (_, stamps)) in enumerate(things.items()):
            tenth = (place + 3 * number) % 10
            sides = [f"{side}/word" for side, tenths in WORD_TENTHS.items() if tenth in tenths]
            split = f"{VOICE[language]}/voice" if language in VOICE else sides[0] if sides else TRAIN
            for stamp in stamps:
                content = files.get(f"{stamp}_desc_{language}.ogg")
                caption = captions[stamp].get(language)
                if content is None or caption is None:
                    continue
                try:
                    samples = _trimmed(read_sound("clip", io.BytesIO(content), RATE_HZ, 0.1, 60.0), RATE_HZ)
                except DataError as error:
                    left_out[f"clips that can't be used ({error.rule})"] += 1
                    continue
                if len(samples) > MOST_SECONDS * RATE_HZ:
                    left_out[f"clips of more than {MOST_SECONDS} seconds"] += 1
                    continue
                path = f"clips/{language}/{stamp.replace('/', '-')}.flac"
                _write_clip(folder / path, samples, RATE_HZ)
                credit = "Tux Paint, GPL-2"
                yield _row(f"speech_{language}", path, thing, split, {language: caption}, f"voice {language}", credit)


def _synthetic(
    folder: pathlib.Path,
    of_thing: Mapping[str, dict[str, str]],
    voices: int,
    seed: int,
    left_out: collections.Counter[str],
) -> Iterator[dict[str, str]]:
    """A row for each synthetic clip: the caption of a thing in a language, spoken by one voice."""
    synthesizer, random = Synthesizer(), np.random.default_rng((seed, 2))
    for language in SPOKEN:
        for thing, captions in ((thing, some) for thing, some in of_thing.items() if language in some):
            for voice in random.choice(synthesizer.variants, voices, replace=False).tolist():
                rate, pitch = (int(random.integers(*bounds)) for bounds in ((140, 200), (30, 70)))
                samples = synthesizer.speak(captions[language], voice, rate, pitch, language) / np.float32(2**15)
                samples = _trimmed(samples, synthesizer.sample_rate_hz)
                if not 0.1 < len(samples) / synthesizer.sample_rate_hz <= MOST_SECONDS:
                    left_out[f"synthetic clips of no or more than {MOST_SECONDS} seconds"] += 1
                    continue
                path = f"synthetic/{language}/{thing.replace(' ', '_')}-{voice}.flac"
                _write_clip(folder / path, samples, synthesizer.sample_rate_hz)
                texts = {language: captions[language]}
                yield _row(f"speech_{language}", path, thing, TRAIN, texts, "synthesiser", "espeak-ng, made here")


def _thinned(captions: Mapping[str, str], split: str, random: np.random.Generator) -> dict[str, str]:
    """All captions of a held-out picture; of one for training the English one and two others."""
    others = [language for language in captions if language != "en"]
    kept = ["en", *random.choice(others, 2, replace=False)] if split == TRAIN else captions
    return {language: captions[language] for language in kept if language in captions}


def _row(
    field: str, path: str, thing: str, split: str, captions: Mapping[str, str], by: str, credit: str
) -> dict[str, str]:
    texts = {f"caption_{language}": caption for language, caption in captions.items()}
    if field == "picture":
        texts["signed"] = f"{captions['en']}, by {by}"
    return {f"{field}_file_name": path, "label": thing, "split": split, **texts, "by": by, "credit": credit}


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name)


def _svg(body: str, width: float, height: float) -> str:
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="0 0 {width} {height}">{body}</svg>'


def _rendered(svg: str) -> PIL.Image.Image:
    """A drawing as pixels, its longer edge `_SUPERSAMPLING · EDGE`."""
    import resvg_py

    tag = _found(r"<svg\b[^>]*>", svg)[0]
    box = re.search(r'viewBox="[-\d.]+[ ,]+[-\d.]+[ ,]+([\d.]+)[ ,]+([\d.]+)"', tag)
    sizes = box.groups() if box else [_pixels(_found(rf'\b{side}="([^"]*)"', tag)[1]) for side in ("width", "height")]
    plain = re.sub(r'\s(width|height)="[^"]*"', "", tag)[:-1]  # the renderer refuses some units
    svg = svg.replace(tag, f'{plain} width="{sizes[0]}" height="{sizes[1]}">', 1)
    return PIL.Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=_SUPERSAMPLING * EDGE))))


def _pixels(length: str) -> float:
    """A length of SVG in pixels (CSS Values 3, section 6.2)."""
    number, unit = _found(r"^([\d.]+)(\w*)$", length).groups()
    return float(number) * {"": 1, "px": 1, "pt": 4 / 3, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96}[unit]


def _found(pattern: str, text: str) -> re.Match[str]:
    """The first match; raises a `DataError` if a drawing has none."""
    match = re.search(pattern, text)
    if match is None:
        raise DataError("drawing", text[:80], f"it must match {pattern}", "use the versions of packages given here")
    return match


def _write_picture(path: pathlib.Path, picture: PIL.Image.Image) -> None:
    """Writes a picture on white, in the middle of a square of `EDGE` pixels."""
    picture = picture.convert("RGBA")
    box = picture.getbbox()
    picture = picture.crop(box) if box else picture
    square = PIL.Image.new("RGBA", (max(picture.size),) * 2, "white")
    square.alpha_composite(picture, tuple((max(picture.size) - edge) // 2 for edge in picture.size))
    path.parent.mkdir(parents=True, exist_ok=True)
    square.convert("RGB").resize((EDGE, EDGE), PIL.Image.Resampling.BOX).save(path)


def _trimmed(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """float32 [samples] without the silence at the beginning and at the end."""
    size = int(_WINDOW_SECONDS * rate_hz)
    windows = samples[: len(samples) // size * size].reshape(-1, size)
    loud = np.flatnonzero(
        np.sqrt((windows**2).mean(axis=1)) > _SILENCE * np.sqrt((windows**2).mean(axis=1).max(initial=0))
    )
    if not len(loud):
        return samples[:0]
    return samples[max(0, loud[0] - _MARGIN_WINDOWS) * size : (loud[-1] + 1 + _MARGIN_WINDOWS) * size]


def _write_clip(path: pathlib.Path, samples: np.ndarray, rate_hz: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    loudest = float(np.abs(samples).max(initial=1e-9))
    soundfile.write(path, np.round(samples / loudest * 0.9 * 32767).astype(np.int16), rate_hz, subtype="PCM_16")
