"""A trained run in the hands of a user: sample, score and rank signals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from omnijax.config import Config
from omnijax.data.corpus import encode_records, fields_of
from omnijax.errors import ConfigError, DataError, check_known
from omnijax.evaluate.likelihoods import TOTAL, Form, document_sums, forms_of
from omnijax.evaluate.loading import OpenRun
from omnijax.evaluate.split import decoded
from omnijax.modalities.base import Items
from omnijax.paths import as_path
from omnijax.run.directory import load_modalities
from omnijax.sample.generate import Generator, documents_of
from omnijax.vocab.documents import Documents


class Bits(NamedTuple):
    """The exact likelihood of one field of a record, given the fields before it, and the number of its items.

    `bits` is −log2 of its probability under the grammar, with the tokens around its items.
    """

    bits: float
    items: int


class Ranked(NamedTuple):
    """One of several answers, −log2 of its probability, and its share of the probability of all answers."""

    answer: Any
    bits: float
    probability: float


def load(run: str | Path, step: int | None = None, trust: bool = False, config: Config | None = None) -> TrainedRun:
    """A trained run, with its newest checkpoint or that of a step.

    Args:
        run: its directory.
        step: of the checkpoint.
        trust: execute the run's experiment file, where it needs one, although it comes from elsewhere.
        config: of the run, where only Python can make it again (data in memory).

    Raises:
        CheckpointError: no run, or one without this checkpoint.
        ConfigError: the experiment file comes from elsewhere.
    """
    with OpenRun(as_path(run), trusted=trust, config=config) as opened:
        return TrainedRun(as_path(run), *opened.load(step))


class TrainedRun:
    """A run with the parameters of one checkpoint; `modalities` are fitted, by field."""

    def __init__(self, path: Path, config: Config, generator: Generator, step: int):
        self.path, self.config, self.generator, self.step = path, config, generator, step
        self.modalities = load_modalities(path, config)
        self._tasks = [" → ".join(task.names) for task in config.batch.tasks]

    def sample(self, given: Mapping[str, Any], to: str, count: int = 1, seed: int = 0) -> Any:
        """Generates a signal of a field from signals of others, directly or along a route that the run is evaluated on.

        Args:
            given: a signal for each field that is known; {} for none.
            to: the field to generate.
            count: of samples; above 1 they come as a list. None stands for what can't be decoded.
            seed: draws the tokens.

        Raises:
            ConfigError: the run can't go from these fields to that one.
            DataError: a signal can't be written.
        """
        made = self.sample_batch([given] * count, to, seed)
        return made if count > 1 else made[0]

    def sample_batch(self, records: Sequence[Mapping[str, Any]], to: str, seed: int = 0) -> list[Any]:
        """Generates a signal of a field for each record; all records have the same fields.

        Raises:
            ConfigError: the run can't go from these fields to that one.
            DataError: records have different fields, or a signal can't be written.
        """
        if not records:
            return []
        names = tuple(records[0])
        for place, record in enumerate(records):
            if set(record) != set(names):
                rule = f"all records of a batch have the same fields, here {', '.join(names)}"
                raise DataError(f"record {place}", sorted(record), rule, "sample them in batches of their own")
        route = self.route(names, to)
        items = {name: self.encode(name, [record[name] for record in records]) for name in route[0]}
        key = jax.random.key(seed)
        if len(route) > 1:
            found = self.generator.along([*route[0], *route[1:]], items[route[0][0]], key)[-1]
        else:
            found = self.generator.generate(items, to, key, count=len(records))
        return decoded(self.modalities[to], found)

    def route(self, names: Sequence[str], to: str) -> tuple[Any, ...]:
        """The way from some fields to another.

        Returns the given fields in the order of a task, and the further fields of a route, if one is needed. Raises a
        `ConfigError` if no task and no evaluated route leads there.
        """
        for route in self.config.eval.routes:
            if [route.through[0]] == list(names) and route.through[-1] == to and len(route.through) > 2:
                return ((route.through[0],), *route.through[1:])
        form, number = self._form(names, to, sampled=True)
        return (form.fields[:number],)

    def score(self, record: Mapping[str, Any]) -> dict[str, Bits]:
        """The exact likelihood of every field of a record that the run was trained to predict from others of it.

        The record is one of a source: a field may have several signals, and `sequence` is an interleaved document.

        Returns:
            The likelihood of each field by its form: `B|A` is field B given field A.

        Raises:
            ConfigError: no task has only fields of this record.
            DataError: a signal can't be written, or the grammar doesn't accept the record.
        """
        return self.score_batch([record])[0]

    def score_batch(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Bits]]:
        """The likelihoods of some records, as `score` gives them, in batches of `eval.batch_size` documents.

        Raises an error as `score` that says the place of a record that can't be scored.
        """
        if not records:
            return []
        found = [dict[str, Bits]() for _ in records]
        corpus = encode_records(self.config, records, fields_of(self.config), self.modalities)
        forms = [form for form in forms_of(self.config) if not any(form.shuffled)]
        having = [corpus.having(form.fields) for form in forms]
        for place in sorted({*range(len(records))}.difference(*having)):
            rule, fix = f"the tasks are {'; '.join(self._tasks)}", "give all fields of one of them"
            raise ConfigError(f"record {place}", sorted(records[place]), rule, fix)
        for form, places in zip(forms, having, strict=True):
            if len(places):
                bits, items = self._bits(form, corpus.documents(places, form.fields), places)
                for row, place in enumerate(places.tolist()):
                    for number in np.flatnonzero(form.learned).tolist():
                        new = Bits(float(bits[row, number]), int(items[row, number]))
                        found[place].setdefault(form.name(number), new)
        return found

    def rank(self, given: Mapping[str, Any], among: Sequence[Any], to: str | None = None) -> list[Ranked]:
        """Orders answers by their exact likelihood, the likeliest first.

        Args:
            given: a signal for each field that is known; {} for none.
            among: the answers, signals of one field.
            to: this field; by default the only one that follows the given ones in a task.

        Raises:
            ConfigError: no task predicts such a field from the given ones.
            DataError: no answer, or one that can't be written.
        """
        if not among:
            raise DataError("among", (), "there must be something to rank", "give at least one answer")
        form, number = self._form(given, to)
        form = form._replace(learned=(*[False] * number, True))  # no other field is measured
        repeated = {name: self.encode(name, [given[name]]) * len(among) for name in form.fields[:-1]}
        items = {**repeated, form.fields[-1]: self.encode(form.fields[-1], among)}
        bits = self._bits(form, documents_of(self.config, items), np.arange(len(among)))[0][:, number]
        shares = np.exp2(bits.min() - bits)
        order = np.argsort(bits, kind="stable")
        return [Ranked(among[place], float(bits[place]), float(shares[place] / shares.sum())) for place in order]

    def predicted(self, given: Mapping[str, Any]) -> str:
        """The first field that a task predicts from exactly these; raises a `ConfigError` if there is none."""
        form, number = self._form(given, None)
        return form.fields[number]

    def encode(self, field: str, signals: Sequence[Any]) -> list[Items]:
        """Items of some signals of a field.

        Raises:
            ConfigError: the run has no such field.
            DataError: a signal can't be written.
        """
        check_known("field", field, self.modalities, "the fields are")
        return self.modalities[field].encode(list(signals)).split()

    def _form(self, given: Collection[str], to: str | None, sampled: bool = False) -> tuple[Form, int]:
        """What is predicted from some fields: a form up to it, in raster order unless it is sampled, and its number."""
        for form in forms_of(self.config):
            for number, name in enumerate(form.fields):
                fits = set(form.fields[:number]) == set(given) and to in (None, name) and name not in given
                if fits and form.learned[number] and (sampled or not any(form.shuffled)):
                    return Form(form.fields[: number + 1], *(part[: number + 1] for part in form[1:])), number
        routes = [" → ".join(route.through) for route in self.config.eval.routes] if sampled else []
        ways = "; ".join(dict.fromkeys([*self._tasks, *routes]))
        rule = f"the run goes {ways}" if sampled else f"the tasks are {ways}"
        raise ConfigError("--to", to, rule, f"give other fields than {', '.join(given) or 'none'}")

    def _bits(self, form: Form, documents: Documents, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bits of each field of some documents, the tokens around its items included, and number of its items.

        An error names the place of a document.
        """
        model, params = self.generator.model, self.generator.params
        sums = document_sums(self.config, model, params, documents, form, TOTAL)
        if not sums["accepted"].all():
            rule = "the grammar of the run doesn't accept it: its modalities say how many items a field has"
            place = int(places[np.argmin(sums["accepted"])])
            raise DataError("record", place, rule, "give a signal within its limits")
        return sums["renormalised"].astype(np.float64) + sums["structure"], sums["items"]
