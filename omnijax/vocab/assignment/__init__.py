"""Assignments: bijections of a space onto itself, which say what number is written for a fragment."""

from __future__ import annotations

from typing import Any

from omnijax.errors import VocabularyError
from omnijax.vocab.assignment.base import Assignment, Identity
from omnijax.vocab.assignment.curves import Gray, Hilbert
from omnijax.vocab.assignment.random import Random
from omnijax.vocab.assignment.table import Frequency, Tree
from omnijax.vocab.assignment.transposed import Transposed
from omnijax.vocab.rules import from_parts

__all__ = ["KINDS", "Assignment", "Frequency", "Gray", "Hilbert", "Identity", "Random", "Transposed", "Tree"]
__all__ += ["assignment_from_dict"]

KINDS: dict[str, Any] = {kind.kind: kind for kind in (Identity, Random, Frequency, Gray, Hilbert, Tree, Transposed)}
"""All assignments by name."""


def assignment_from_dict(parts: Any) -> Assignment:
    """The assignment with these parts, as `dataclasses.asdict` gives them; else raises a `VocabularyError`."""
    if not isinstance(parts, dict) or parts.get("kind") not in KINDS:
        rule = f"must be a mapping of the parts of one of {', '.join(KINDS)}, `kind` among them"
        raise VocabularyError("assignment", parts, rule, "give what to_json writes")
    return from_parts(KINDS[parts["kind"]], parts, "assignment")
