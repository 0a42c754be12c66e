"""Figures of chips that `omnijax plan` uses: memory and its bandwidth, peak rate, links.

Sources. Memory: the limit that the compiler (`libtpu` 0.0.42) names when it refuses a larger program. The rest: the
tables "System architecture" of https://docs.cloud.google.com/tpu/docs/ v4, v5e, v5p, v6e and tpu7x: peak bf16 FLOPs;
bandwidth of the HBM; the inter-chip bandwidth of a chip in both directions, of which one link in one direction is an
eighth in two dimensions (v5e 400 GB/s, v6e 800 GB/s), a twelfth in three (v4 600, v5p 1200, tpu7x 1200); between slices
the data-center network of a chip (v5p 50 Gb/s, tpu7x 100 Gb/s), or of a pod divided by its 256 chips (v5e 6.4 Tb/s, v6e
25.6 Tb/s), of v4 taken to be v5p's. Clock: peak rate over what the matrix units do in a cycle, which is how the
compiler's estimated cycles become seconds. NVIDIA: the data sheets of A100 80GB, H100 and H200 as SXM: dense bf16,
NVLink in one direction, a network card of 200 or 400 Gb/s for each.
"""

from __future__ import annotations

import dataclasses

GiB = 1024**3


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device as a program sees it.

    Attributes:
        name: used in the names of topologies.
        memory_bytes: that a program can use.
        flops: peak rate of matrix products in bfloat16, per second.
        bandwidth: of the memory, bytes per second.
        link_bandwidth: of one link to a neighbour in one direction, bytes per second.
        slice_bandwidth: between slices (or nodes), bytes per second.
        clock_hz: of the matrix units; 0 if no compiler estimates cycles.
        dimensions: of the torus; 0 if the links go through a switch.
        full: size of an axis at which its ends are joined; in three dimensions also multiples of it.
        devices: number of JAX devices of a chip.
    """

    name: str
    memory_bytes: float
    flops: float
    bandwidth: float
    link_bandwidth: float
    slice_bandwidth: float
    clock_hz: float = 0.0
    dimensions: int = 0
    full: int = 0
    devices: int = 1

    def directions(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Directions in which a device can send along each axis of a slice: 2 if the ends are joined, else 1."""
        if self.dimensions == 3:
            cube = all(size % self.full == 0 for size in sizes)
            return tuple(2 if cube else 1 for _ in sizes)
        return tuple(2 if size == self.full else 1 for size in sizes)


CHIPS = {
    "v4": Chip("v4", 30.75 * GiB, 275e12, 1228e9, 50e9, 6.25e9, 1.05e9, 3, 4),
    "v5e": Chip("v5e", 15.75 * GiB, 197e12, 819e9, 50e9, 3.125e9, 1.50e9, 2, 16),
    "v5p": Chip("v5p", 95.74 * GiB, 459e12, 2765e9, 100e9, 6.25e9, 1.75e9, 3, 4),
    "v6e": Chip("v6e", 31.25 * GiB, 918e12, 1640e9, 100e9, 12.5e9, 1.75e9, 2, 16),
    # A chip has two devices: the figures are those of half a chip.
    "tpu7x": Chip("tpu7x", 94.75 * GiB, 1153.5e12, 3690e9, 50e9, 6.25e9, 0.0, 3, 4, devices=2),
    "a100": Chip("a100", 80e9, 312e12, 2039e9, 300e9, 25e9),
    "h100": Chip("h100", 80e9, 989e12, 3350e9, 450e9, 50e9),
    "h200": Chip("h200", 141e9, 989e12, 4800e9, 450e9, 50e9),
}
"""By the name before the colon of a topology."""
