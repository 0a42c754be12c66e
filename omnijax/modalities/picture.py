"""Pictures as patches, each patch one fragment, without loss."""

from __future__ import annotations

import dataclasses
import html
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
from etils import epy
from jaxtyping import Bool, Float64, Int, Shaped, UInt32

from omnijax.errors import ConfigError, DataError
from omnijax.modalities import colours, predict
from omnijax.modalities.base import Items, Modality, Part, array_of, refuse_digits
from omnijax.modalities.colours import Colours
from omnijax.modalities.inline import data_uri, png
from omnijax.modalities.picture_file import probe_picture, read_picture, read_pixels

with epy.lazy_imports():  # extras: files and views need them, training on arrays doesn't
    import PIL.Image
    import scipy.ndimage

_COLOURS = (1, 2, 3, 4)
"""Numbers of channels that picture files have: grey or colour, with or without opacity."""
SMALLEST_SHOWN = 128
"""Pictures in files are enlarged until their longer edge has about as many pixels."""
_TILE = 64


@dataclasses.dataclass(frozen=True)
class Picture(Modality):
    """A picture as square patches in raster order.

    The sub-pixels of a patch are the natural digits of its fragment, in radix `levels`: row by row, the channels of a
    pixel one after another. Every picture has its fragments, and every fragment its patch: 2×2 RGB patches of 256
    levels are fragments below 2^96.

    A picture is uint8 (uint16 above 256 levels) of [height, width, channels], or [height, width] with one channel.
    """

    name: str = "picture"
    height: int = 8
    """Pixels; with `variable`, of the largest picture."""
    width: int = 8
    """Pixels; with `variable`, of the largest picture."""
    channels: int = 1
    levels: int = 256
    """Values are 0 … levels - 1."""
    patch: int = 2
    """Edge of a patch in pixels, at most the picture's. Patches at the right and lower edge are filled up with 0."""
    variable: bool = False
    """Pictures have any size up to `height` × `width`; each begins with a header that says which."""
    background: int = dataclasses.field(default=0, metadata={"shapes_data": False})
    """Level, 0 … levels - 1, behind the transparent parts of a picture file. Not used with 2 or 4 channels."""
    colours: Colours = "rgb"
    """How three channels are written, without loss: as they are; `green`: green, red - green, blue - green; `ycocg`:
    YCoCg-R. Differences are modulo `levels`. It needs 3 or 4 channels."""
    residuals: bool = False
    """Each value is written as its difference from what its left and upper neighbours predict, modulo `levels`. A small
    model then needs fewer bits. But a patch can't be decoded without its neighbours, so pictures can't be completed."""

    lossless: ClassVar[bool] = True
    views: ClassVar[tuple[str, ...]] = ("moved", "varied")
    suffix: ClassVar[str] = ".png"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif")
    field: ClassVar[str] = "picture"

    @property
    def parts(self) -> tuple[Part, ...]:
        """Patches; before them, where the size varies, a header of height - 1 and width - 1."""
        radices = (self.levels,) * (self.patch**2 * self.channels)
        if not self.variable:
            return (Part(self.name, radices),)
        return (Part(f"{self.name}.size", (self.height, self.width)), Part(f"{self.name}.patch", radices))

    @property
    def halves(self) -> tuple[str, ...]:
        """What a signal can be completed from."""
        return () if self.residuals else ("left", "right", "top", "bottom")

    @property
    def limits(self) -> tuple[tuple[int, int], ...]:
        """One header, then from one patch to those of the largest picture; or always as many."""
        most = self._patches(self.height, self.width)
        return ((1, 1), (1, most)) if self.variable else ((most, most),)

    def check(self, field: str) -> None:
        """Raises a `ConfigError` for a size, channels or levels out of their bounds."""
        self.check_bounds(field, height=(1, 2**16), width=(1, 2**16), channels=(1, 2**8), levels=(2, 2**16))
        self.check_bounds(field, background=(0, self.levels - 1))
        self.check_bounds(field, patch=(1, min(2**8, max(self.height, self.width))))
        if self.colours != "rgb" and (self.channels not in (3, 4) or not self.lossless):
            rule = "needs 3 or 4 channels, and patches that are written without loss"
            raise ConfigError(f"{field}.colours", self.colours, rule, "use rgb")
        if self.residuals and not self.lossless:
            rule = "needs patches that are written without loss"
            raise ConfigError(f"{field}.residuals", self.residuals, rule, "set it to False")

    def bounds(self, before: Items) -> tuple[int, int]:
        """The header, then exactly the patches of the size that it says."""
        return self.limits[0] if not len(before.part) else (self._patches(*self._size(before)),) * 2

    def encode(self, signals: Sequence[Shaped[np.ndarray, "..."]]) -> Items:
        """Patches of each picture, in raster order; pictures of one size are written at once."""
        pictures = [array_of(self.name, signal) for signal in signals]
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, picture in enumerate(pictures):
            places.setdefault((picture.shape, picture.dtype), []).append(place)
        found = [self._items(np.stack([pictures[place] for place in those])) for those in places.values()]
        if len(found) == 1:
            return found[0]
        return Items.joined(found).reordered(np.argsort(np.array(list(itertools.chain(*places.values())), np.int64)))

    def _items(self, pictures: Shaped[np.ndarray, "n ..."]) -> Items:
        """The items of pictures of one size."""
        patches = self._written(self._cut(self._transformed(self._checked(pictures))))
        if not self.variable:
            return Items.many(0, patches)
        sequences, count, places = patches.shape
        digits = np.zeros((sequences, 1 + count, max(2, places)), np.uint32)
        digits[:, 0, :2] = pictures.shape[1] - 1, pictures.shape[2] - 1
        digits[:, 1:, :places] = patches
        part = np.tile(np.arange(1 + count) > 0, sequences).astype(np.int8)
        return dataclasses.replace(Items.many(1, digits), part=part)

    def decode(self, items: Items, present: Bool[np.ndarray, " items"] | None = None) -> Shaped[np.ndarray, "..."]:
        """The picture that has these patches; the inverse of `encode`. Missing patches are 0."""
        refuse_digits(self, items)
        body, headers = len(self.parts) - 1, int((items.part == 0).sum())
        if self.variable and headers != 1:
            rule = "a picture of variable size begins with one header"
            raise DataError(f"{self.name} headers", headers, rule, "pass all items of one picture")
        height, width = self._size(items)
        digits = items.of(body, len(self.parts[body].radices))
        if len(digits) != self._patches(height, width):
            rule = f"a picture of {height} × {width} pixels has {self._patches(height, width)} patches"
            raise DataError(f"{self.name} fragments", len(digits), rule, "pass all items of one picture, in order")
        pixels = self._pixels(digits)
        if present is not None:
            pixels = np.where(np.asarray(present)[items.part == body][:, None], pixels, 0)
        p, rows, columns = self.patch, -(-height // self.patch), -(-width // self.patch)
        blocks = pixels.reshape(rows, columns, p, p, self.channels).swapaxes(1, 2)
        whole = self._restored(blocks.reshape(rows * p, columns * p, self.channels)[:height, :width])
        return whole[..., 0] if self.channels == 1 else whole

    def view(
        self, name: str, signals: Sequence[Any], seed: int, places: Int[np.ndarray, " n"], total: int
    ) -> Sequence[Any]:
        """`moved`: half of the pictures as they are, the others turned and moved a little. `varied`: all, and more.

        `moved`: by up to 12 degrees around the centre and up to a pixel each way, drawn evenly; interpolated by cubic
        splines and rounded to levels. What leaves at an edge is lost, and 0 enters.

        `varied`: half mirrored; all by up to 12 degrees, a tenth of an edge each way, and up to 15 % larger
        or smaller; the distance of each channel from `background` up to 20 % more or less. Edges go on outwards. Most
        also get another style: another hue, more, less or no saturation, outlines, a gamma, or they fade.
        """
        if name not in self.views:
            return super().view(name, signals, seed, places, total)
        random = np.random.default_rng(seed)
        angles, shifts = np.deg2rad(random.uniform(-12, 12, total)), random.uniform(-1, 1, (total, 2))
        chosen = random.random(total) < 0.5
        if name == "varied":
            scales, gains = random.uniform(0.85, 1.15, total), random.uniform(0.8, 1.2, (total, self.channels))
            styles = random.random((total, 6))
            return [
                self._turned(
                    self._restyled(np.asarray(signal), styles[place])[:, :: -1 if chosen[place] else 1],
                    angles[place],
                    shifts[place] * 0.1 * np.shape(signal)[:2],
                    scales[place],
                    gains[place],
                    "nearest",
                )
                for signal, place in zip(signals, places, strict=True)
            ]
        return [
            self._turned(np.asarray(signal), angles[place], shifts[place]) if chosen[place] else signal
            for signal, place in zip(signals, places, strict=True)
        ]

    def given(self, half: str, items: Items) -> Bool[np.ndarray, " items"]:
        """The header, and the patches in one half; the larger part where they don't halve."""
        height, width = self._size(items)
        rows, columns = -(-height // self.patch), -(-width // self.patch)
        row, column = np.divmod(np.arange(rows * columns), columns)
        known = np.ones(len(items.part), bool)
        known[items.part == len(self.parts) - 1] = {
            "left": 2 * column < columns,
            "right": 2 * (columns - 1 - column) < columns,
            "top": 2 * row < rows,
            "bottom": 2 * (rows - 1 - row) < rows,
        }[half]
        return known

    def units(self, signal: Shaped[np.ndarray, "..."]) -> tuple[int, str] | None:
        """Number of pixels, or of sub-pixels where there are several channels."""
        return int(np.size(signal)), "pixel" if self.channels == 1 else "sub-pixel"

    def metrics(self, real: Sequence[Any], made: Sequence[Any]) -> dict[str, float]:
        """`level_distance`: earth mover's distance between the values of real and generated pictures, in levels."""
        if not real:
            return {}
        values = (np.concatenate([np.ravel(one) for one in side]) for side in (real, made))
        shares = [np.cumsum(np.bincount(side, minlength=self.levels) / len(side)) for side in values]
        return {"level_distance": float(np.abs(shares[0] - shares[1]).sum())}

    def raw(self, signal: Shaped[np.ndarray, "..."]) -> bytes:
        """The sub-pixels in raster order."""
        return np.ascontiguousarray(signal, self._dtype).tobytes()

    def html(self, signal: Shaped[np.ndarray, "..."], label: str) -> str:
        """The picture as a PNG inside the page; a small one is shown with several screen pixels for each of its own.

        Two channels stand side by side, each in grey; of more than four the first three are shown.
        """
        pixels = self._bytes(signal).reshape(*np.shape(signal)[:2], -1)
        if self.channels == 2:
            pixels = pixels.swapaxes(1, 2).reshape(len(pixels), -1, 1)
        height, width, _ = pixels.shape
        zoom = max(1, _TILE // max(height, width))
        return (
            f'<img class="tile{" pixels" if zoom > 1 else ""}" alt="{html.escape(label, quote=True)}" '
            f'width="{zoom * width}" height="{zoom * height}" src="{data_uri("image/png", png(pixels))}">'
        )

    @classmethod
    def probe(cls, stream: BinaryIO) -> dict[str, int | float]:
        """Width and height in pixels as it is shown, channels, and whether it has transparent parts."""
        return probe_picture(cls().name, stream)

    @classmethod
    def suited(cls, headers: Sequence[Mapping[str, int | float]], tokens: int) -> tuple[Self, list[str]]:
        """Patches of 2 × 2 pixels, in colour where a file has it, of the largest size that the tokens allow."""
        channels = 3 if any(header["channels"] > 2 for header in headers) else 1
        sizes = {(int(header["height"]), int(header["width"])) for header in headers}
        height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
        if len(sizes) > 1 and height * width * channels * 2 > tokens:  # a square suits upright ones and others
            height = width = max(height, width)
        patch, lost = 2, []
        patches = max(1, tokens // (patch**2 * channels + 1))
        scale = math.sqrt(patches * patch**2 / (height * width))
        if scale < 1:
            small = [max(patch, int(edge * scale) // patch * patch) for edge in (height, width)]
            share = 100 * small[0] * small[1] / (height * width)
            lost.append(f"pictures become at most {small[1]} × {small[0]} pixels, {share:.2g} % of the largest one")
            height, width = small
        if any(header["transparent"] for header in headers):
            lost.append("transparent parts become black: `background` is another level")
        return cls(height=height, width=width, channels=channels, patch=patch, variable=len(sizes) > 1), lost

    def read(self, stream: BinaryIO) -> Shaped[np.ndarray, "..."]:
        """A picture file, converted to the number of channels (at most 4), resized to fit, scaled to `levels`."""
        if self.channels not in _COLOURS:
            rule, fix = "picture files have 1 to 4 channels", "give arrays from Python instead"
            raise DataError(f"{self.name}.channels", self.channels, rule, fix)
        most = self.levels - 1
        shown = read_picture(self.name, stream, self.channels, self.levels, self.background / most, self._fitting)
        pixels = np.rint(shown * most).clip(0, most).astype(self._dtype)
        return pixels[..., 0] if self.channels == 1 else pixels

    def cut(self, stream: BinaryIO) -> tuple[list[Any], dict[str, int]]:
        """The pixels of a file in tiles of `height` × `width`, in raster order.

        Tiles at the right and lower edge are smaller where the size is variable; otherwise they repeat the last pixel.
        """
        if self.levels != 256:
            raise DataError(f"{self.name}.levels", self.levels, "files have 256 levels", "choose another field")
        pixels = read_pixels(self.name, stream, self.channels)
        height, width = pixels.shape[:2]
        if not self.variable:
            pixels = np.pad(pixels, ((0, -height % self.height), (0, -width % self.width), (0, 0)), mode="edge")
        pixels = pixels[..., 0] if self.channels == 1 else pixels
        corners = itertools.product(range(0, height, self.height), range(0, width, self.width))
        tiles = [pixels[top : top + self.height, left : left + self.width] for top, left in corners]
        return tiles, {"height": height, "width": width}

    def paste(self, signals: Sequence[Any], told: Mapping[str, int], stream: BinaryIO) -> None:
        """Writes a PNG file of the pixels."""
        columns = -(-told["width"] // self.width)
        starts = range(0, len(signals), columns)
        whole = np.concatenate([np.concatenate(signals[start : start + columns], axis=1) for start in starts])
        _save(self._bytes(whole[: told["height"], : told["width"]]), 1, stream)

    def _fitting(self, width: int, height: int) -> tuple[int, int]:
        """Width and height, in pixels, that a picture file is resized to."""
        if not self.variable:
            return self.width, self.height
        scale = min(1.0, self.width / width, self.height / height)  # shrinks large pictures, enlarges none
        return max(1, int(width * scale)), max(1, int(height * scale))

    def write(self, signal: Shaped[np.ndarray, "..."], stream: BinaryIO) -> None:
        """Writes a PNG of 8 bits a channel; of more than 4 channels it has the first three.

        A small picture is enlarged by a whole factor, where `read` knows its size again.
        """
        _save(self._bytes(signal), 1 if self.variable else SMALLEST_SHOWN, stream)

    def sheet(self, signals: Sequence[Shaped[np.ndarray, "..."]], stream: BinaryIO) -> None:
        """Writes a PNG with the pictures in rows, about as many as columns, a thin line between them."""
        pictures = [self._bytes(signal) for signal in signals]
        height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
        columns = math.ceil(math.sqrt(len(pictures)))
        rows = -(-len(pictures) // columns)
        canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, *pictures[0].shape[2:]), 128, np.uint8)
        for number, picture in enumerate(pictures):
            top, left = number // columns * (height + 1), number % columns * (width + 1)
            canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        _save(canvas, 4 * SMALLEST_SHOWN, stream)

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8 if self.levels <= 256 else np.uint16)

    def _patches(self, height: int, width: int) -> int:
        return -(-height // self.patch) * -(-width // self.patch)

    def _size(self, items: Items) -> tuple[int, int]:
        height, width = items.of(0, 2)[0].tolist() if self.variable else (self.height - 1, self.width - 1)
        return height + 1, width + 1

    def _checked(self, pictures: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, "n height width channels"]:
        pixels = pictures[..., None] if pictures.ndim == 3 and self.channels == 1 else pictures
        most, size, fix = (self.height, self.width), pixels.shape[1:3], "resize, scale and round the picture"
        fits = pixels.ndim == 4 and pixels.shape[3] == self.channels and 0 not in pixels.shape
        if not fits or not (size == most or (self.variable and size[0] <= most[0] and size[1] <= most[1])):
            at_most = "at most " if self.variable else ""
            rule = f"a picture must have {at_most}{self.height} × {self.width} pixels of {self.channels} channels"
            raise DataError(f"{self.name} shape", pictures.shape[1:], rule, fix)
        rule = f"values must be between 0 and {self.levels - 1}, whole numbers"
        if pixels.dtype.kind not in "iu":
            raise DataError(f"{self.name} dtype", str(pixels.dtype), rule, fix)
        for value in (pixels.min(), pixels.max()):
            if not 0 <= value < self.levels:
                raise DataError(f"{self.name} value", value.item(), rule, fix)
        return pixels

    def _written(self, patches: Shaped[np.ndarray, "n patches size"]) -> Shaped[np.ndarray, "n patches digits"]:
        """The digits of patches of sub-pixels."""
        return patches

    def _pixels(self, digits: UInt32[np.ndarray, "patches digits"]) -> Shaped[np.ndarray, "patches size"]:
        """The sub-pixels that have these digits."""
        return digits

    def _transformed(self, pictures: Shaped[np.ndarray, "n h w c"]) -> Shaped[np.ndarray, "n h w c"]:
        """Pictures in the colours that are written, and without what neighbours predict."""
        found = pictures if self.colours == "rgb" else colours.written(pictures, self.colours, self.levels)
        return predict.residuals((found + self._middle) % self.levels, self.levels) if self.residuals else found

    def _restored(self, values: Shaped[np.ndarray, "h w c"]) -> Shaped[np.ndarray, "h w c"]:
        """The inverse of `_transformed`, of one picture."""
        if self.residuals:
            values = (predict.original(values.astype(np.int64)[None], self.levels)[0] - self._middle) % self.levels
        found = values if self.colours == "rgb" else colours.original(values, self.colours, self.levels)
        return found.astype(self._dtype)

    @property
    def _middle(self) -> Int[np.ndarray, " channels"]:
        """An offset for each channel: it moves differences between channels, which wrap around 0, to the middle."""
        return np.where(np.isin(np.arange(self.channels), (1, 2)) & (self.colours != "rgb"), self.levels // 2, 0)

    def _cut(self, pictures: Shaped[np.ndarray, "n h w c"]) -> Shaped[np.ndarray, "n patches digits"]:
        p, (n, height, width, channels) = self.patch, pictures.shape
        filled = np.pad(pictures, ((0, 0), (0, -height % p), (0, -width % p), (0, 0)))
        rows, columns = filled.shape[1] // p, filled.shape[2] // p
        blocks = filled.reshape(n, rows, p, columns, p, channels).swapaxes(2, 3)
        return blocks.reshape(n, rows * columns, p * p * channels)

    def _restyled(self, picture: np.ndarray, draws: Float64[np.ndarray, "6"]) -> np.ndarray:
        """The picture in another style, which six numbers in [0, 1) draw; as it is where the first is 0.7 or more."""
        most, layers = self.levels - 1, picture.reshape(*picture.shape[:2], -1).astype(np.float64)
        if draws[0] >= 0.7:
            return picture
        grey = layers.mean(-1, keepdims=True)
        if self.channels == 3:  # turns around the axis of greys, and goes nearer to it or away
            angle, saturation = 1.8 * (draws[1] - 0.5), 0.0 if draws[2] < 0.25 else 1.6 * draws[2]
            cosine, sine = np.cos(angle), np.sin(angle) / math.sqrt(3)
            row = (1 - cosine) / 3 + np.array([cosine, -sine, sine])
            layers = grey + saturation * (layers - grey) @ np.stack([np.roll(row, place) for place in range(3)])
        if draws[3] < 0.3 and min(picture.shape[:2]) > 1:
            edges = np.abs(np.gradient(grey[..., 0])).max(0)[..., None]
            layers += (0.6 + 8 * draws[3]) * (-edges if self.background > most / 2 else edges)
        if draws[4] < 0.25:
            layers += (0.2 + 2.4 * draws[4]) * (self.background - layers)
        layers = most * np.clip(layers / most, 0, 1) ** np.exp(draws[5] - 0.5)
        return np.rint(layers).astype(picture.dtype).reshape(picture.shape)

    def _turned(
        self,
        picture: Shaped[np.ndarray, "..."],
        angle: float,
        shift: Any,
        scale: float = 1.0,
        gains: Any = 1.0,
        mode: str = "constant",
    ) -> Shaped[np.ndarray, "..."]:
        centre = (np.array(picture.shape[:2]) - 1) / 2
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
        offset = centre - turn @ (centre + shift)
        layers = picture[..., None] if picture.ndim == 2 else picture
        layers = self.background + gains * (layers - float(self.background))
        turned = [scipy.ndimage.affine_transform(one, turn, offset, mode=mode) for one in np.moveaxis(layers, 2, 0)]
        whole = np.clip(np.rint(np.stack(turned, axis=-1)), 0, self.levels - 1).astype(picture.dtype)
        return whole.reshape(picture.shape)

    def _bytes(self, signal: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Values scaled to 0 … 255, in as many channels as a file can have."""
        shown = np.asarray(signal) if self.channels in _COLOURS else np.asarray(signal)[..., :3]
        pixels: Shaped[np.ndarray, "..."] = np.rint(shown * (255 / (self.levels - 1))).astype(np.uint8)
        return pixels


def _save(pixels: Shaped[np.ndarray, "..."], edge: int, stream: BinaryIO) -> None:
    """Writes a PNG, enlarged by a whole factor until its longer edge has about `edge` pixels."""
    zoom = max(1, edge // max(pixels.shape[:2]))
    PIL.Image.fromarray(pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)).save(stream, format="PNG")
