"""Twenty things that are drawn here, in the form of make_things.py: for tests, and for a look without any package.

    python experiments/things/miniature.py FOLDER

The experiment reads the folder with `--data.folder FOLDER --data.directory data/miniature`. Its 2,048 pieces of text
are too many for twenty things; tests and the notebook set 50.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import PIL.Image
import soundfile

LANGUAGES = ("fr", "ru", "ro", "ca", "bg", "es", "be", "el", "da")
ARTISTS = {"round": "train", "square": "train", "flat": "validation/artist", "thin": "test/artist"}
RATE_HZ = 16000


def draw(thing: int, artist: str) -> PIL.Image.Image:
    """A picture of a thing by an artist. The thing determines colour and size, the artist the shape."""
    row, column = np.abs(np.mgrid[-15.5:16:1, -15.5:16:1])
    size = 5 + thing // 5 * 3
    inside = {
        "round": np.hypot(row, column) < size,
        "square": np.maximum(row, column) < size,
        "flat": np.hypot(1.3 * row, column) < size,
        "thin": np.hypot(row, 1.3 * column) < size,
    }[artist]
    colour = [(200, 30, 30), (30, 160, 60), (40, 60, 220), (240, 200, 0), (20, 20, 20)][thing % 5]
    return PIL.Image.fromarray(np.where(inside[..., None], colour, 255).astype(np.uint8))


def say(thing: int, language: int) -> np.ndarray:
    """Half a second of a tone. The thing determines its pitch, the language how noisy it is."""
    time, random = np.arange(RATE_HZ // 2) / RATE_HZ, np.random.default_rng((thing, language))
    tone = np.sin(2 * np.pi * (200 + 40 * thing) * time * (1 + 0.2 * np.sin(2 * np.pi * (1 + thing % 3) * time)))
    return 0.3 * tone + 0.01 * (1 + language) * random.normal(size=time.size)


def make(folder: pathlib.Path, languages: Sequence[str] = LANGUAGES) -> None:
    """Fills a folder with 80 pictures, 20 recorded clips in each language, synthetic ones, and the table of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    captions = [{f"caption_{one}": f"{one} {number:02d}" for one in ("en", *languages)} for number in range(20)]
    for thing in range(20):
        for artist, split in ARTISTS.items():
            draw(thing, artist).save(folder / f"{artist}{thing}.png")
            row = {"picture_file_name": f"{artist}{thing}.png", "label": f"thing {thing}", "split": split}
            row |= captions[thing] | {"signed": f"{captions[thing]['caption_en']}, by {artist}"}
            rows.append(row | {"by": artist, "credit": "made here"})
        for number, language in enumerate(languages):
            name, split = f"{language}{thing}.flac", "test/voice" if language == "da" and thing % 2 else "train"
            split = "validation/word" if (thing + number) % 10 == 0 else split
            soundfile.write(folder / name, say(thing, number), RATE_HZ)
            row = {f"speech_{language}_file_name": name, "label": f"thing {thing}", "split": split}
            row |= {"by": f"voice {language}", "credit": "made here"}
            row |= {f"caption_{language}": captions[thing][f"caption_{language}"]}
            rows.append(row)
            if (thing + number) % 5 == 0:
                soundfile.write(folder / f"synthetic-{name}", say(thing, number + 9), RATE_HZ)
                other = {f"speech_{language}_file_name": f"synthetic-{name}", "split": "train", "by": "synthesiser"}
                rows.append(row | other)
    held_out = {"validation/photo": 0, "test/photo": 1, "test/word": 2, "validation/voice": 3}
    for split, place in held_out.items():  # every split has a record
        rows[place]["split"] = split
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    make(pathlib.Path(sys.argv[1]))
