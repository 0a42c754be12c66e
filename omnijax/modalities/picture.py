"""Grey images as patches, each patch one fragment, without loss."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.ndimage
from jaxtyping import Int64, Shaped, UInt8

from omnijax import errors
from omnijax.modalities.text import check_ids


@dataclasses.dataclass(frozen=True)
class PatchImage:
    """A grey image as square patches in raster order.

    The pixels of a patch, in raster order, are the digits of its id in radix `levels`, the first the most significant:
    `id = sum(pixel[k] * levels ** (patch**2 - 1 - k))`. Every image has its ids and every id its patch.

    Attributes:
        height: of the image, pixels.
        width: of the image, pixels.
        patch: edge of a patch, pixels.
        levels: grey levels; pixels are `0 .. levels - 1`.

    Raises:
        ConfigError: the patch doesn't divide the image, or the ids don't fit into 31 bits.
    """

    height: int = 8
    width: int = 8
    patch: int = 2
    levels: int = 17
    name: str = "image"

    def __post_init__(self) -> None:
        if self.patch < 1 or self.height % self.patch or self.width % self.patch:
            rule = f"a patch must divide the image of {self.height} x {self.width} pixels"
            raise errors.ConfigError("image.patch", self.patch, rule, "choose a common divisor of height and width")
        if not 2 <= self.levels <= 256 or self.size > 2**31:
            rule = "there must be 2 to 256 levels, and levels ** (patch ** 2) must not exceed 2 ** 31"
            raise errors.ConfigError("image.levels", self.levels, rule, "use fewer levels or smaller patches")

    @property
    def size(self) -> int:
        """How many different patches there are."""
        return int(self.levels ** (self.patch**2))

    @property
    def _place_values(self) -> Int64[np.ndarray, " pixels"]:
        return self.levels ** np.arange(self.patch**2 - 1, -1, -1, dtype=np.int64)

    def fragments(self, signal: UInt8[np.ndarray, "*batch height width"]) -> Int64[np.ndarray, "*batch patches"]:
        """Returns the ids of an image's patches, in raster order.

        Args:
            signal: pixels `0 .. levels - 1`; leading batch dimensions are kept.

        Raises:
            DataError: another shape, or a pixel out of range.
        """
        pixels = np.asarray(signal)
        if pixels.shape[-2:] != (self.height, self.width):
            rule = f"an image must have {self.height} x {self.width} pixels"
            raise errors.DataError("image shape", pixels.shape, rule, "resize the image")
        if pixels.size and (pixels.min() < 0 or pixels.max() >= self.levels):
            wrong = pixels[(pixels < 0) | (pixels >= self.levels)][0]
            rule = f"grey levels must be between 0 and {self.levels - 1}"
            raise errors.DataError("image pixel", wrong.item(), rule, "rescale the image")
        batch, p = pixels.shape[:-2], self.patch
        blocks = pixels.reshape(*batch, self.height // p, p, self.width // p, p).swapaxes(-3, -2)
        return blocks.reshape(*batch, -1, p * p).astype(np.int64) @ self._place_values

    def signal(self, ids: Int64[np.ndarray, "*batch patches"]) -> UInt8[np.ndarray, "*batch height width"]:
        """Returns the image whose patches have these ids; the inverse of `fragments`.

        Raises:
            DataError: an id out of range, or not as many ids as an image has patches.
        """
        ids = check_ids(self.name, self.size, ids)
        p, rows, columns = self.patch, self.height // self.patch, self.width // self.patch
        if ids.shape[-1:] != (rows * columns,):
            fix = "pass all fragments of one image, in order"
            raise errors.DataError("image fragments", ids.shape, f"an image has {rows * columns} fragments", fix)
        blocks: Shaped[np.ndarray, "..."] = ids[..., None] // self._place_values % self.levels
        blocks = blocks.reshape(*ids.shape[:-1], rows, columns, p, p).swapaxes(-3, -2)
        return blocks.reshape(*ids.shape[:-1], self.height, self.width).astype(np.uint8)


def moved(
    images: UInt8[np.ndarray, "n height width"], levels: int, seed: int, first: int = 0, total: int | None = None
) -> UInt8[np.ndarray, "n height width"]:
    """Returns half of the images as they are, the others turned and moved a little: more of the same to learn from.

    By up to 12 degrees around the centre and up to a pixel each way, drawn evenly; interpolated by cubic splines and
    rounded to grey levels. What leaves at an edge is lost, and 0 enters.

    Args:
        images: all of them, or some that follow one another.
        levels: of grey.
        seed: draws for all of them, so that some get what they get among all.
        first: the place of the first of these among all.
        total: how many there are; these by default.
    """
    random = np.random.default_rng(seed)
    count, height, width = images.shape
    total = count if total is None else total
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    angles, shifts = np.deg2rad(random.uniform(-12, 12, total)), random.uniform(-1, 1, (total, 2))
    chosen = (random.random(total) < 0.5)[first : first + count]
    angles, shifts = angles[first : first + count], shifts[first : first + count]
    result = images.copy()
    for index in np.flatnonzero(chosen):
        sine, cosine = np.sin(angles[index]), np.cos(angles[index])
        turn = np.array([[cosine, -sine], [sine, cosine]])
        offset = centre - turn @ (centre + shifts[index])
        grey = scipy.ndimage.affine_transform(images[index].astype(np.float64), turn, offset)
        result[index] = np.clip(np.rint(grey), 0, levels - 1)
    return result
