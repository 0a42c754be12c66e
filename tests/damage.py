"""For tests that read damaged checkpoints."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def broken_off() -> Iterator[None]:
    """Collects garbage: when one array can't be read, Orbax drops the other reads, which Python then reports here."""
    yield
    gc.collect()


reads_are_broken_off = pytest.mark.filterwarnings(
    "ignore:(?s)Exception ignored in. (<coroutine object _read_array_index_and_device_put|None.*loop is closed)"
    ":pytest.PytestUnraisableExceptionWarning"
)
