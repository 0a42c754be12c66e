"""One sample for the command line: a word, a picture or a sound in, another one out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.io.wavfile
import scipy.signal
from PIL import Image

from omnijax.config import Config
from omnijax.data.corpus import digit_modalities
from omnijax.errors import ConfigError, DataError
from omnijax.evaluate import load_run
from omnijax.modalities import PatchImage

ZOOM = 16
SUFFIX = {"image": ".png", "speech": ".wav"}


def sample_once(run: Path, source: str, given: Any, target: str, out: Path | None, seed: int) -> str:
    """Turns one signal into another modality; along the route that the run is evaluated on, where it has one.

    Args:
        run: a trained run.
        source: modality of what is given.
        given: a text, or the path of a picture or of a WAV file.
        target: modality to make.
        out: where to write a picture or a sound.
        seed: draws the tokens.

    Returns:
        A line for people: the text, or where the file is.

    Raises:
        ConfigError: source and target don't differ, or `out` is missing or of another kind.
        DataError: the file can't be read.
    """
    if source == target:
        raise ConfigError("--to", target, "must be another modality than the source", "choose another one")
    if target in SUFFIX and (out is None or out.suffix != SUFFIX[target]):
        where = None if out is None else str(out)
        raise ConfigError("--out", where, f"{target} needs a file that ends with {SUFFIX[target]}", "add one")
    config, generator, _ = load_run(run)
    modalities = digit_modalities(config.data)
    signal = given if source == "text" else _read(source, Path(given), config, modalities["image"])
    routes = [
        route.through for route in config.eval.routes if (route.through[0], route.through[-1]) == (source, target)
    ]
    route = routes[0] if routes else (source, target)
    fragments = [modalities[source].fragments(signal)]
    made = modalities[target].signal(generator.along(route, fragments, jax.random.key(seed)).fragments[0])
    if out is None:
        return str(made)
    out.parent.mkdir(parents=True, exist_ok=True)
    _write(target, made, out, config)
    return f"{' → '.join(route)}: {out}"


def _read(source: str, path: Path, config: Config, image: Any) -> np.ndarray:
    if not path.is_file():
        raise DataError(f"--{source}", str(path), "there is no such file", "give the path of one")
    try:
        if source == "image":
            assert isinstance(image, PatchImage)
            with Image.open(path) as picture:
                small = picture.convert("L").resize((image.width, image.height), Image.Resampling.BOX)
            return np.rint(np.asarray(small) * ((image.levels - 1) / 255)).astype(np.uint8)
        rate, samples = scipy.io.wavfile.read(path)
    except (OSError, ValueError) as error:
        raise DataError(f"--{source}", str(path), f"it can't be read ({error})", "give a PNG or a WAV file") from error
    wave = samples.mean(axis=1) if samples.ndim > 1 else samples.astype(np.float64)
    if np.issubdtype(samples.dtype, np.integer):
        wave = wave / np.iinfo(samples.dtype).max
    return np.asarray(scipy.signal.resample_poly(wave, config.data.sample_rate_hz, rate), np.float32)


def _write(target: str, made: np.ndarray, out: Path, config: Config) -> None:
    if target == "image":
        grey = np.rint(made * (255 / (made.max() if made.max() > 16 else 16))).astype(np.uint8)
        Image.fromarray(np.kron(grey, np.ones((ZOOM, ZOOM), np.uint8))).save(out)
        return
    scipy.io.wavfile.write(out, config.data.sample_rate_hz, np.rint(np.clip(made, -1, 1) * 32767).astype(np.int16))
