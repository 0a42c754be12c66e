"""What is trained on, and how it becomes batches."""

from __future__ import annotations

import dataclasses


def field_of(name: str) -> str:
    """The field of a view `FIELD/VIEW`."""
    return name.split("/")[0]


@dataclasses.dataclass(frozen=True)
class Task:
    """A kind of training document: these fields of one record, in this order, a segment for each signal.

    A task takes the records that have all of its fields.
    """

    fields: tuple[str, ...]
    """Names of fields, or of views (`FIELD/VIEW`); or `("sequence",)`, a whole interleaved document."""
    weights: tuple[float, ...]
    """Weight of a token of each field in the loss. For 0 the head computes nothing, unless `mesh.tensor` splits it."""
    repeats: int = 1
    """How often every record appears in this form in an epoch."""
    draws: int = 1
    """Number of stored variants of each view. Each repeat and each epoch takes the next one; then they start again."""
    random_order: tuple[float, ...] = ()
    """For each field, the share of documents that write its fragments in a random order, drawn anew each time; () is
    none. Positions still say where the fragments belong, so that a model learns to go on from any of them."""

    @property
    def names(self) -> tuple[str, ...]:
        """The fields without their views."""
        return tuple(field_of(name) for name in self.fields)

    def drawn(self, draw: int) -> tuple[str, ...]:
        """The fields, with the views of variant `draw` modulo `draws`."""
        draw %= self.draws
        return tuple(f"{name}/{draw}" if draw and name != field_of(name) else name for name in self.fields)

    @property
    def random_orders(self) -> tuple[float, ...]:
        """`random_order`, one for each field."""
        return self.random_order or (0.0,) * len(self.fields)


@dataclasses.dataclass(frozen=True)
class BatchConfig:
    """How documents become batches."""

    tasks: tuple[Task, ...]
    size: int = 48
    """Sequences in a global batch, over all processes."""
    sequence_length: int = 256
    """Tokens in a sequence; documents are packed into sequences and never cut."""
    sequence_items: int = 0
    """If above 0, sequences are packed by items instead of tokens: a document counts its items, two for each segment,
    and one. So each step has the same documents in every vocabulary, and a model that steps once an item (`model.head`)
    takes `sequence_items` steps for a sequence. `sequence_length` must hold the longest sequence."""
    seed: int = 0
    """Draws the order of the documents, anew each epoch, and the views."""
    prefetch: int = 4
    """Batches that are made ahead on the host."""

    @property
    def views(self) -> tuple[str, ...]:
        """The fields and views that the tasks name, with all variants of the views."""
        drawn = (one for task in self.tasks for draw in range(task.draws) for one in task.drawn(draw))
        return tuple(dict.fromkeys(drawn))
