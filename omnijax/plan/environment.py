"""Environment variables for compiling without the devices; they have to be set before JAX is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping

WITHOUT_A_TPU: Mapping[str, str] = {
    "TPU_SKIP_MDS_QUERY": "1",  # don't ask the cloud what machine this is
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no process here uses a chip, so that several may compile
    # The library asks for these; a topology that is given by name doesn't depend on them.
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def settle_environment() -> None:
    """Sets the variables that TPU's compiler reads when it is loaded, unless the user has set them."""
    for name, value in WITHOUT_A_TPU.items():
        os.environ.setdefault(name, value)


def prepare_environment(topology: str) -> None:
    """Sets all variables for a plan, which uses no device but a GPU; call it before JAX is imported."""
    settle_environment()
    if not topology.startswith("gpu"):
        os.environ["JAX_PLATFORMS"] = "cpu"
