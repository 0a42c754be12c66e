"""Colour: crops of photographs as lossless patches of 2^96, with a source and a modality that this file defines.

Question   Does a model learn lossless 2×2 patches of 24-bit colour, each one of 2^96 fragments, from four photographs?
Command    omnijax train experiments/colour.py --workdir runs/colour && omnijax evaluate runs/colour
Data       crops of 16×16 pixels from scikit-image's photographs, pip install 'omnijax[photographs]': four photographs
           for training, two for validation, two for test. The caption of a crop says how bright it is.
Hardware   2 CPU cores (x86-64), 2 GiB
Time       some 15 minutes, most of them training
Expect     fewer bits a sub-pixel than the 8 of a guess, on photographs that the model never saw
"""

import dataclasses
import html
import io
from base64 import b64encode

import numpy as np
import PIL.Image

from omnijax.config import BatchConfig, Config, EvalConfig, OptimConfig, Route, Task, TrainConfig
from omnijax.errors import DataError
from omnijax.modalities import Items, Modality, Part, Text
from omnijax.modalities.base import refuse_digits
from omnijax.model.sizes import SIZES
from omnijax.source import Source

SHADES = ("dark", "dim", "light", "bright")
PHOTOGRAPHS = {
    "train": ("astronaut", "coffee", "hubble_deep_field", "rocket"),
    "validation": ("chelsea", "immunohistochemistry"),
    "test": ("retina", "stereo_motorcycle"),
}


@dataclasses.dataclass(frozen=True)
class Colour(Modality):
    """A crop, uint8 [16, 16, 3], as 64 patches in raster order, whose 12 bytes are the digits of their fragments."""

    name: str = "photo"
    parts, limits = (Part("photo", (256,) * 12),), ((64, 64),)
    lossless, suffix = True, ".png"

    def encode(self, signals):
        """Patches."""
        for crop in signals:
            if np.shape(crop) != (16, 16, 3) or crop.dtype != np.uint8:
                raise DataError("photo", np.shape(crop), "a crop is uint8 [16, 16, 3]", "convert it")
        return Items.many(0, np.reshape(signals, (-1, 8, 2, 8, 2, 3)).swapaxes(2, 3).reshape(-1, 64, 12))

    def decode(self, items, present=None):
        """The crop; missing patches are black."""
        refuse_digits(self, items)
        patches = items.digits if present is None else items.digits * np.asarray(present)[:, None]
        return patches.astype(np.uint8).reshape(8, 8, 2, 2, 3).swapaxes(1, 2).reshape(16, 16, 3)

    def units(self, signal):
        """Sub-pixels."""
        return np.size(signal), "sub-pixel"

    def html(self, signal, label):
        """A picture inside the page."""
        self.write(signal, file := io.BytesIO())
        uri = f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
        return f'<img class="tile" alt="{html.escape(label)}" width="44" height="44" src="{uri}">'

    def read(self, stream):
        """Any picture, resized."""
        return np.array(PIL.Image.open(stream).convert("RGB").resize((16, 16), PIL.Image.Resampling.BOX))

    def write(self, signal, stream):
        """A PNG."""
        PIL.Image.fromarray(np.asarray(signal).repeat(8, axis=0).repeat(8, axis=1)).save(stream, format="PNG")


@dataclasses.dataclass(frozen=True)
class Photographs(Source):
    """Crops from anywhere in the photographs of a split."""

    crops: int = 512  # of each photograph
    fields = {"text": Text(least=3, most=6), "photo": Colour()}

    def records(self, split):
        """Crops of the photographs in turn."""
        import skimage.data

        random, found = np.random.default_rng((self.seed, self.splits.index(split))), []
        for photo in [getattr(skimage.data, name)() for name in PHOTOGRAPHS[split]] * self.crops:
            photo = photo[0] if isinstance(photo, tuple) else photo  # of a stereo pair
            top, left = random.integers(0, np.array(photo.shape[:2]) - 15)
            found.append(photo[top : top + 16, left : left + 16])
        return [{"photo": crop, "text": SHADES[int(crop.mean()) // 64]} for crop in found]


def get_config() -> Config:
    """Captions and crops, both ways."""
    tasks = (Task(("photo", "text"), weights=(1.0, 5.0)), Task(("text", "photo"), weights=(0.0, 1.0)))
    batch, optim = BatchConfig(tasks, size=8, sequence_length=864), OptimConfig(learning_rate=2e-3, warmup_steps=60)
    evaluated = EvalConfig(routes=(Route(("photo", "text")), Route(("text", "photo"))), examples=120, batch_size=60)
    train = TrainConfig(steps=600, checkpoint_every=200)
    return Config(Photographs(), batch, SIZES["nano"].model, optim=optim, train=train, eval=evaluated)
