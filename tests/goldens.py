"""Compares what a test finds with a golden file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def check_golden(path: Path, found: Any, refresh_when: str, relative_tolerance: float = 0.0) -> None:
    """Compares a value with a golden file; writes the file if `UPDATE_GOLDENS=1` is set.

    Args:
        path: of a JSON file.
        found: what JSON can hold.
        refresh_when: says when it is right to refresh this golden.
        relative_tolerance: how far numbers may differ.

    Raises:
        AssertionError: they differ; says where, when it is right to refresh the file, and how.
    """
    found = json.loads(json.dumps(found))
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        return
    differ = ["there is no such file"]
    if path.exists():
        differ = list(_differences(json.loads(path.read_text()), found, "", relative_tolerance))
    if differ:
        shown = "\n  ".join([*differ[:10], *(["…"] if len(differ) > 10 else [])])
        raise AssertionError(
            f"{path} says otherwise:\n  {shown}\nIt is right to refresh this golden when {refresh_when}; otherwise the "
            "code is wrong. To refresh: run this test with UPDATE_GOLDENS=1, and read the diff before you commit it."
        )


def _differences(golden: Any, found: Any, path: str, tolerance: float) -> Iterator[str]:
    if isinstance(golden, dict) and isinstance(found, dict):
        for key in sorted(golden.keys() | found.keys()):
            if key in golden and key in found:
                yield from _differences(golden[key], found[key], f"{path}/{key}", tolerance)
            else:
                yield f"{path}/{key} is only {'in the golden' if key in golden else 'here'}"
    elif isinstance(golden, list) and isinstance(found, list) and len(golden) == len(found):
        for number, pair in enumerate(zip(golden, found, strict=True)):
            yield from _differences(*pair, f"{path}/{number}", tolerance)
    else:
        numbers = type(golden) is type(found) is float
        if not (numbers and math.isclose(golden, found, rel_tol=tolerance)) and golden != found:
            yield f"{path} is {golden!r} in the golden and {found!r} here"
