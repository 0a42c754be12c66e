"""What holds for all tests: 8 fake CPU devices, no silent rank promotion, reproducible hypothesis runs."""

import os
import pathlib
import re

# Set before JAX is imported, and in the environment, so that commands which tests start see the same devices.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# The older way of saying it must not contradict.
os.environ["XLA_FLAGS"] = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
# Tests draw figures without a display.
os.environ["MPLBACKEND"] = "agg"
# Many tests, and the commands they start, compile the same step: once is enough. The results are the same bits.
# A worker of pytest-xdist has a place of its own: JAX writes entries in place, where another could read half of one.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
    pathlib.Path(__file__).parents[1] / ".pytest_cache" / "compiled" / os.environ.get("PYTEST_XDIST_WORKER", "alone")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import signal
from collections.abc import Iterator

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
assert jax.device_count() == 8, f"tests need 8 fake CPU devices, found {jax.devices()}: was JAX initialised before?"

# The same examples on every run. `pytest --hypothesis-profile explore` looks further.
hypothesis.settings.register_profile("house", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("explore", derandomize=False, deadline=None, max_examples=2000)
hypothesis.settings.load_profile("house")


@pytest.fixture(scope="module")
def quick_compiler() -> Iterator[None]:
    """For tests of what is computed, not of how fast: `pytestmark = pytest.mark.usefixtures("quick_compiler")`."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def interruptible() -> Iterator[None]:
    """A shell starts what it puts in the background with SIGINT ignored, and a script can't trap what it came with."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
