"""The code in the READMEs runs as it stands there."""

from __future__ import annotations

import pathlib
import re

import pytest

pytestmark = pytest.mark.usefixtures("quick_compiler")

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCKS = [
    pytest.param(block, id=f"{readme}-{number}")
    for readme in ("README.md", "omnijax/vocab/README.md")
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / readme).read_text("utf-8"), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_code_runs(block: str) -> None:
    assert "assert" in block
    exec(compile(block, "README", "exec"), {"__name__": "readme"})


def test_both_readmes_have_code() -> None:
    assert len(BLOCKS) >= 2
