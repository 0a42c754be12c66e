"""Every error a user can cause: typed, and naming the field, the value, the rule and the fix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

WRONG_INPUT = 2
"""Exit status of a command whose input can't work."""
RESUMABLE = 75
"""Exit status of a run that was stopped, or lost a peer: the same command goes on (EX_TEMPFAIL of sysexits.h)."""


def shortened(text: str, most: int = 300) -> str:
    """The text, with `…` in place of its middle if it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 3 :]}"


class OmnijaxError(Exception):
    """Base of all errors that bad input causes.

    Attributes:
        field: dotted name of what is wrong, as the user wrote it (`vocabulary.base`).
        value: the value found there.
        rule: what has to hold.
        fix: what to do about it.
    """

    def __init__(self, field: str, value: object, rule: str, fix: str):
        self.field, self.value, self.rule, self.fix = field, value, rule, fix
        super().__init__(f"{field} = {shortened(repr(value))}: {rule}. Fix: {fix}.")

    def __reduce__(self) -> tuple[Any, ...]:
        """For `pickle`, on the way from another process."""
        return type(self), (self.field, self.value, self.rule, self.fix)


class ConfigError(OmnijaxError):
    """A knob has a value that can't work, or doesn't exist."""


class VocabularyError(OmnijaxError):
    """A vocabulary that can't be read back, or a document that it can't write."""


class DataError(OmnijaxError):
    """Data that is missing, damaged, or not what the configuration says."""


class CheckpointError(OmnijaxError):
    """A run directory or checkpoint that belongs to something else."""


class PeerLostError(OmnijaxError):
    """Another process of the job is gone, or doesn't answer; the same command goes on from the last checkpoint."""


class PlatformError(OmnijaxError):
    """Something this machine lacks (a library, a device)."""


class NonFiniteLossError(OmnijaxError, FloatingPointError):
    """Training met a loss or gradient that is not a finite number."""


def check_known(field: str, value: str, known: Iterable[str], what: str) -> None:
    """Raises a `ConfigError` unless a name is a known one; `what` begins the list of these, as in "the splits are"."""
    known = tuple(known)
    if value not in known:
        raise ConfigError(field, value, f"{what} {', '.join(known) or 'none'}", "use one of these")
