"""What a modality is: the way from signals to items and back. It knows no tokens and no files."""

from __future__ import annotations

import copy
import dataclasses
import html
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
from jaxtyping import Bool, Int, UInt32

from omnijax.errors import ConfigError, DataError
from omnijax.vocab.ids import Numbers
from omnijax.vocab.numbers import from_digits, to_digits

GENERAL = -1
"""Part of an item that is a general token."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A space of the vocabulary that a modality writes fragments of.

    Attributes:
        name: unique in a configuration.
        radices: the natural digits of a fragment, most significant first: pixels, channels, stages.
        size: number of fragments; 0 is the product of the radices.
        capacity: number of ids that fixed width leaves room for, so that the space can grow; 0 is `size`.
    """

    name: str
    radices: tuple[int, ...]
    size: int = 0
    capacity: int = 0

    @property
    def fragments(self) -> int:
        """Number of fragments."""
        return self.size or math.prod(self.radices)

    def numbers(self, digits: UInt32[np.ndarray, "n places"]) -> Numbers:
        """Ids of fragments: int64[n] where all ids of the part fit, otherwise uint32[n, limbs]."""
        return from_digits(digits[:, : len(self.radices)], self.radices)

    def digits(self, numbers: Numbers) -> UInt32[np.ndarray, "n places"]:
        """Natural digits of ids; the inverse of `numbers`."""
        return to_digits(numbers, self.radices).astype(np.uint32)


@dataclasses.dataclass(frozen=True, eq=False)
class Items:
    """Items of one or more sequences, one after another.

    Attributes:
        part: int8[items], index of each item's part in `Modality.parts`; `GENERAL` for a general token.
        digits: uint32[items, places], natural digits of each fragment, most significant first, zeros behind them;
            a general token has its own number in the first place. Stored digits may be smaller unsigned integers.
        counts: int64[sequences], items of each sequence.
    """

    part: Int[np.ndarray, " items"]
    digits: UInt32[np.ndarray, "items places"]
    counts: Int[np.ndarray, " sequences"]

    @classmethod
    def one(cls, part: int, digits: Int[np.ndarray, "items places"]) -> Items:
        """One sequence of items of one part."""
        return cls.many(part, digits[None])

    @classmethod
    def many(cls, part: int, digits: Int[np.ndarray, "sequences items places"]) -> Items:
        """Sequences of equally many items of one part."""
        sequences, items, places = digits.shape
        flat = np.ascontiguousarray(digits, np.uint32).reshape(sequences * items, places)
        return cls(np.full(len(flat), part, np.int8), flat, np.full(sequences, items, np.int64))

    @classmethod
    def joined(cls, sequences: Sequence[Items]) -> Items:
        """All sequences of some `Items`, in order."""
        places = max((one.digits.shape[1] for one in sequences), default=1)
        wide = [one.digits.shape[1] == places for one in sequences]
        digits = [
            one.digits if full else np.pad(one.digits, ((0, 0), (0, places - one.digits.shape[1])))
            for one, full in zip(sequences, wide, strict=True)
        ]
        return cls(
            np.concatenate([np.zeros(0, np.int8), *(one.part for one in sequences)]),
            np.concatenate(digits) if digits else np.zeros((0, places), np.uint32),
            np.concatenate([np.zeros(0, np.int64), *(one.counts for one in sequences)]),
        )

    @classmethod
    def chained(cls, *parts: Items) -> Items:
        """One sequence of the items of some sequences, in order: a header and what follows it."""
        whole = cls.joined(parts)
        return dataclasses.replace(whole, counts=np.array([len(whole.part)], np.int64))

    def reordered(self, order: Int[np.ndarray, " n"]) -> Items:
        """Some of the sequences, in this order."""
        chosen = within(np.cumsum(self.counts) - self.counts, self.counts, order)
        return Items(self.part[chosen], self.digits[chosen], self.counts[order])

    def split(self) -> list[Items]:
        """Each sequence by itself."""
        ends = np.cumsum(self.counts)
        return [
            Items(self.part[end - count : end], self.digits[end - count : end], np.array([count], np.int64))
            for count, end in zip(self.counts, ends, strict=True)
        ]

    def of(self, part: int, places: int) -> UInt32[np.ndarray, "items places"]:
        """Digits of the items of one part."""
        return self.digits[self.part == part, :places]

    def __len__(self) -> int:
        return len(self.counts)


def within(
    starts: Int[np.ndarray, " n"], counts: Int[np.ndarray, " n"], chosen: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " k"]:
    """Indices of the parts of some wholes: from `starts` on, `counts` of each."""
    counts = counts[chosen]
    ends = np.cumsum(counts)
    return np.repeat(starts[chosen] - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)


Progress = Callable[[float], None]
"""Told the share that is done, up to 1."""


@dataclasses.dataclass(frozen=True)
class Modality:
    """A kind of signal. Subclasses are frozen dataclasses, and so their own configuration.

    Parts come from the configuration alone, so that the vocabulary exists before the data. A modality with several
    parts writes them one after another, a segment each: a header first.
    """

    name: str = ""
    """Of the space, too, where there is one part."""

    general: ClassVar[int] = 0
    """Number of general tokens that this modality owns; above 0 in one modality of a configuration."""
    lossless: ClassVar[bool] = False
    """Whether `decode(encode(signal))` is the signal."""
    learned: ClassVar[bool] = False
    """Whether `fit` has to learn something before signals can be encoded."""
    views: ClassVar[tuple[str, ...]] = ()
    """Names of the augmentations that `view` makes."""
    suffix: ClassVar[str] = ""
    """Ending of the files that `read` and `write` know; "" where people type the signal."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Endings of the files that `read` knows, in small letters; () where folders have no such files."""
    field: ClassVar[str] = ""
    """Name of the field of such files in a folder."""
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The spaces that this modality writes fragments of; () where it writes general tokens alone."""
        return ()

    @property
    def limits(self) -> tuple[tuple[int, int], ...]:
        """Fewest and most items of each segment: one for each part, or one of general tokens."""
        raise ConfigError("modality", type(self).__name__, "a modality has `limits`", "define them in the class")

    @property
    def halves(self) -> tuple[str, ...]:
        """Names of the parts of a signal that `given` knows, from which the rest can be completed."""
        return ()

    @property
    def seconds(self) -> float:
        """Longest time that a signal may take; 0 for signals without time."""
        return 0.0

    def check(self, field: str) -> None:
        """Raises a `ConfigError` for a knob that can't work; `field` is the path of the modality, for the error."""

    def check_bounds(self, field: str, **bounds: tuple[int, float]) -> None:
        """Raises a `ConfigError` for the first knob that isn't in its bounds, both included."""
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if not least <= value <= most:
                rule = f"must be at least {least}" if most == math.inf else f"must be in {least} … {most}"
                raise ConfigError(f"{field}.{name}", value, rule, "choose such a number")

    def fit(self, signals: Sequence[Any], seed: int, progress: Progress) -> dict[str, np.ndarray]:
        """Learns from the training split what `encode` needs. The same signals and seed give the same arrays."""
        return {}

    def bound(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """This modality with what `fit` learned."""
        fitted = copy.copy(self)
        object.__setattr__(fitted, "arrays", dict(arrays))
        return fitted

    def encode(self, signals: Sequence[Any]) -> Items:
        """Items of each signal, a sequence for each; raises a `DataError` for one that this modality can't write."""
        raise DataError("modality", self.name, "it can't encode", "define `encode` in the class")

    def decode(self, items: Items, present: Bool[np.ndarray, " items"] | None = None) -> Any:
        """The signal of items, blank where they aren't `present`; raises a `DataError` if they are none of a signal."""
        raise DataError("modality", self.name, "it can't decode", "define `decode` in the class")

    def bounds(self, before: Items) -> tuple[int, int]:
        """Fewest and most items of the next segment of one sequence, behind whole segments or, at its start, none."""
        return self.limits[len(np.unique(before.part))]

    def given(self, half: str, items: Items) -> Bool[np.ndarray, " items"]:
        """Which items of one sequence lie in one of `halves`."""
        raise ConfigError("eval.completions", half, f"the halves are {self.halves or 'none'}", "use one of these")

    def view(
        self, name: str, signals: Sequence[Any], seed: int, places: Int[np.ndarray, " n"], total: int
    ) -> Sequence[Any]:
        """Augmented signals, one for each, by one of `views`.

        The seed draws what happens to each of the `total` records of the split; `places` are those of the signals.
        """
        raise ConfigError("batch.tasks", f"{self.name}/{name}", f"the views are {self.views or 'none'}", "use one")

    def units(self, signal: Any) -> tuple[int, str] | None:
        """Number of natural units of a signal and their name, as (64, "pixel"), where the modality is lossless."""
        return None

    def metrics(self, real: Sequence[Any], made: Sequence[Any]) -> dict[str, float]:
        """Figures that compare generated signals with the real ones of the same records."""
        return {}

    def raw(self, signal: Any) -> bytes:
        """The bytes of a signal, for classical codecs; b"" where there is no such form."""
        return b""

    def anchors(self, signals: Sequence[Any]) -> dict[str, float]:
        """Bits per natural unit of classical codecs over all signals together; {} where the modality has no units."""
        units, raw = [self.units(signal) for signal in signals], [self.raw(signal) for signal in signals]
        if not raw or not all(raw) or None in units:
            return {}
        return {"zlib": 8 * len(zlib.compress(b"".join(raw), 9)) / sum(count for count, _ in filter(None, units))}

    def html(self, signal: Any, label: str) -> str:
        """A signal as a piece of a page, escaped: a word, a picture, a player. It needs no other file.

        The style of pages knows the classes `word` for text, `word nothing` for an empty signal, `tile` for a picture
        (`tile pixels` for an enlarged one), and `player` around a sound. `label` is for readers who can't see it.
        """
        text = self.show(signal)
        return f'<span class="word">{html.escape(text)}</span>' if text else '<span class="word nothing">nothing</span>'

    def parse(self, text: str) -> Any:
        """The signal that a person typed, where `suffix` is ""; raises a `DataError` if it can't be read."""
        raise DataError(self.name, text, f"it is read from a {self.suffix} file", "give the path of one")

    def show(self, signal: Any) -> str:
        """A signal as a line of text, where `suffix` is ""."""
        return str(signal)

    def read(self, stream: BinaryIO) -> Any:
        """Reads a file, and converts it to this configuration. Raises a `DataError` if the file can't be read."""
        try:
            text = stream.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(self.name, "file", f"it must be a text file in UTF-8 ({error})", "convert it") from error
        return self.parse(text.removesuffix("\n").removesuffix("\r"))

    def windows(self, stream: BinaryIO, seconds: float) -> list[Any]:
        """The signals of a file in windows of so many seconds, one after another, where signals have a time.

        A last window that is shorter than half of the others is left out, unless it is the only one. Raises a
        `DataError` if the file can't be read as one of this modality.
        """
        raise DataError("modality", self.name, "its signals have no time", "define `windows` in the class")

    @classmethod
    def probe(cls, stream: BinaryIO) -> dict[str, int | float]:
        """What a file's header says: sizes, lengths, rates. Raises a `DataError` if it is no file of this modality."""
        raise DataError("modality", cls.__name__, "it has no files", "define `probe` in the class")

    @classmethod
    def suited(cls, headers: Sequence[Mapping[str, int | float]], tokens: int) -> tuple[Self, list[str]]:
        """The configuration that fits some files.

        Args:
            headers: what `probe` says of them.
            tokens: most tokens that a signal should have, in base 256 with a position for each fragment.

        Returns:
            The modality, and a line for people about each thing that is lost or changed.
        """
        raise DataError("modality", cls.__name__, "it has no files", "define `suited` in the class")

    def write(self, signal: Any, stream: BinaryIO) -> None:
        """Writes a signal as a file of this modality."""
        stream.write((self.show(signal) + "\n").encode())

    def cut(self, stream: BinaryIO) -> tuple[list[Any], dict[str, int]]:
        """The signals that make up a file without loss, each within `limits`; and what `paste` has to be told.

        Raises a `DataError` if the file can't be read, or not without changing something.
        """
        raise DataError("modality", self.name, "its files can't be cut without loss", "choose another field")

    def exactly(self, items: Items) -> Any:
        """The signal of items, as `cut` has it."""
        return self.decode(items)

    def paste(self, signals: Sequence[Any], told: Mapping[str, int], stream: BinaryIO) -> None:
        """Writes the file that `cut` made into signals: the same text, pixels or samples."""
        raise DataError("modality", self.name, "its files can't be cut without loss", "choose another field")

    def sheet(self, signals: Sequence[Any], stream: BinaryIO) -> None:
        """Writes several signals as one file: by default a line for each, as `show` has it."""
        stream.write("".join(self.show(signal) + "\n" for signal in signals).encode())


class PartsOf(Sequence[Any]):
    """All parts of several sequences as one sequence, such as the frames of all clips.

    `whole(number)` gives a sequence; it is called for every part that is read.
    """

    def __init__(self, whole: Callable[[int], Sequence[Any]], count: int):
        self._whole, self._ends = whole, np.cumsum([len(whole(number)) for number in range(count)])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._whole(number)[index - int(self._ends[number])]  # from the end


def sliced(signal: Any, length: int) -> list[Any]:
    """Parts of a signal along its first axis, as `Modality.windows` has them."""
    parts = [signal[start : start + length] for start in range(0, len(signal), length)]
    return parts[:-1] if len(parts) > 1 and 2 * len(parts[-1]) < length else parts


def refuse_digits(modality: Modality, items: Items) -> None:
    """Raises a `DataError` if an item belongs to no part of the modality, or if a digit isn't below its radix."""
    known = {number: part.radices for number, part in enumerate(modality.parts)}
    known |= {GENERAL: (modality.general,)} if modality.general else {}
    fix = "decode with the configuration that made it"
    for part in np.unique(items.part).tolist():
        if part not in known:
            rule = f"the parts of {modality.name!r} are {[one.name for one in modality.parts]}"
            raise DataError(f"{modality.name} item", part, rule, fix)
        digits = items.of(part, len(known[part]))
        wrong = digits >= np.array(known[part], np.uint64)
        if wrong.any():
            rule = f"digits must be below their radices {known[part]}"
            raise DataError(f"{modality.name} fragment", int(digits[wrong][0]), rule, fix)


def array_of(name: str, signal: Any) -> np.ndarray:
    """A signal as an array; raises a `DataError` if it can't be one."""
    try:
        return np.asarray(signal)
    except ValueError as error:
        raise DataError(name, type(signal).__name__, f"it must be an array ({error})", "give equal rows") from error
