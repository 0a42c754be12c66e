"""What has to be in the environment before JAX is imported, for a compiler without its devices."""

from __future__ import annotations

import os
from collections.abc import Mapping

WITHOUT_A_TPU: Mapping[str, str] = {
    "TPU_SKIP_MDS_QUERY": "1",  # don't ask the cloud what machine this is
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing here takes a chip, so that several processes may compile
    # Asked for where the cloud would have said it; a topology by name doesn't depend on them.
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def settle_environment() -> None:
    """Sets what TPU's compiler looks at when it is loaded; what the user has set stays."""
    for name, value in WITHOUT_A_TPU.items():
        os.environ.setdefault(name, value)


def prepare_environment(topology: str) -> None:
    """Sets what has to be set before JAX is imported: a plan takes no device, and waits for none."""
    settle_environment()
    if not topology.startswith("gpu"):
        os.environ["JAX_PLATFORMS"] = "cpu"
