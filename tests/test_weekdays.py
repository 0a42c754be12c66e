"""A modality that is neither text, picture nor sound, defined in an experiment file, through every command."""

from __future__ import annotations

import json
import pathlib
import sys

import numpy as np
import pytest

from omnijax.cli import main
from omnijax.config import Config, from_dict, to_dict
from omnijax.config.experiment_file import EXPERIMENT_PREFIX, run_file
from omnijax.config.serial import needs_experiment
from omnijax.data.corpus import read_split
from omnijax.errors import ConfigError, DataError
from omnijax.experiment import load_experiment, override

EXPERIMENT = '''
"""Appointments, and the day of the first one."""
import dataclasses
import html

import numpy as np

from omnijax.config import BatchConfig, Config, EvalConfig, ModelConfig, Route, Task, TrainConfig, Writing
from omnijax.errors import DataError
from omnijax.modalities import Items, Modality, Part, Text
from omnijax.modalities.base import refuse_digits
from omnijax.source import Source

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

@dataclasses.dataclass(frozen=True)
class Table(Modality):
    """A table of appointments, (("Mon", 9), …): a header with the number of rows, then day and hour of each."""

    name: str = "table"
    parts, limits = (Part("table.rows", (5,)), Part("table.entry", (7, 24))), ((1, 1), (1, 5))
    lossless = True

    def encode(self, signals):
        found = []
        for table in signals:
            if not 1 <= len(table) <= 5 or not all(day in DAYS and hour in range(24) for day, hour in table):
                raise DataError("table", table, "1 to 5 rows of a day and an hour", "mend it")
            rows = np.array([(DAYS.index(day), hour) for day, hour in table])
            found.append(Items.chained(Items.one(0, np.array([[len(rows) - 1]])), Items.one(1, rows)))
        return Items.joined(found)

    def bounds(self, before):
        count = int(before.digits[0, 0]) + 1 if len(before.part) else 1
        return count, count

    def decode(self, items, present=None):
        refuse_digits(self, items)
        rows, known = items.of(1, 2), np.ones(len(items.part), bool) if present is None else np.asarray(present)
        if (items.part == 0).sum() != 1 or items.digits[items.part == 0, 0] != len(rows) - 1:
            raise DataError("table", len(rows), "as many rows as the header says", "pass all items")
        return tuple((DAYS[d] if k else "?", int(h)) for (d, h), k in zip(rows, known[items.part == 1]))

    def units(self, signal):
        return len(signal), "row"

    def html(self, signal, label):
        rows = "".join(f"<tr><td>{html.escape(day)}</td><td>{hour}:00</td></tr>" for day, hour in signal)
        return f'<table title="{html.escape(label)}">{rows}</table>'

    def show(self, signal):
        return ", ".join(f"{day} {hour}" for day, hour in signal)

    def parse(self, text):
        return tuple((one.split()[0], int(one.split()[1])) for one in text.split(","))

@dataclasses.dataclass(frozen=True)
class Appointments(Source):
    fields = {"day": Text(least=3, most=3), "table": Table()}

    def records(self, split):
        random, found = np.random.default_rng((self.seed, self.splits.index(split))), []
        for number in range(90):
            table = tuple((DAYS[random.integers(7)], int(random.integers(24))) for _ in range(random.integers(1, 6)))
            found.append({"day": table[0][0], "table": table if number % 3 else None})
        return found

def get_config():
    tasks = Task(("day", "table"), (1.0, 1.0)), Task(("table", "day"), (1.0, 1.0))
    batch, model = BatchConfig(tasks, size=8, sequence_length=64), ModelConfig(1, 32, 4, 2, 8, 64)
    evaluated = EvalConfig(routes=(Route(("day", "table")),), examples=8, batch_size=8, show=4)
    return Config(Appointments(), batch, model, Writing(24), train=TrainConfig(20, log_every=1), eval=evaluated)
'''


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("weekdays") / "appointments.py"
    path.write_text(EXPERIMENT.lstrip())
    return path


@pytest.fixture(scope="module")
def config(experiment: pathlib.Path) -> Config:
    return load_experiment(experiment)


def test_it_is_defined_in_under_80_lines(experiment: pathlib.Path) -> None:
    source = experiment.read_text()
    assert len(source[: source.index("def get_config")].splitlines()) < 80


def test_the_configuration_finds_its_classes_in_the_experiment_file(experiment: pathlib.Path, config: Config) -> None:
    parts = to_dict(config)
    assert parts["data"]["class"] == "experiment:Appointments"
    assert needs_experiment(parts)
    again = from_dict(parts, lambda: run_file(experiment))
    assert to_dict(again) == parts
    assert type(again.data.fields["table"]).__name__ == "Table"
    with pytest.raises(ConfigError, match="only the experiment file"):
        from_dict(parts)
    assert override(config, ["--data.seed", "7"]).data.seed == 7


def test_the_vocabulary_has_a_space_for_each_part(config: Config) -> None:
    assert [(space.name, space.size) for space in config.vocabulary.spaces[1:]] == [
        ("table.rows", 5),
        ("table.entry", 7 * 24),
    ]
    assert config.vocabulary.control == ("eos", "day", "table", "table.entry")


def test_tables_come_back_and_wrong_ones_are_refused(config: Config) -> None:
    table = config.data.fields["table"]
    signals = [record["table"] for record in config.data.records("train") if record["table"]]
    for signal, items in zip(signals, table.encode(signals).split(), strict=True):
        assert table.decode(items) == signal == table.parse(table.show(signal))
        header = items.reordered(np.zeros(0, np.int64))
        assert table.bounds(header) == (1, 1)
        assert table.bounds(table.encode([signal[:1]])) == (1, 1)
    with pytest.raises(DataError, match="1 to 5 rows"):
        table.encode([(("Mon", 24),)])


def test_a_third_of_the_records_has_no_table(config: Config) -> None:
    corpus = read_split(config, "train", ("day", "table")).corpus()
    assert len(corpus) == 90
    assert len(corpus.having(("day", "table"))) == 60


@pytest.mark.slow
def test_it_goes_through_every_command(experiment: pathlib.Path, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", str(experiment)]) == 0
    assert main(["train", str(experiment), "--workdir", "run"]) == 0
    losses = [json.loads(line)["loss"] for line in pathlib.Path("run/metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 20
    assert losses[-1] < losses[0]
    for name in [one for one in sys.modules if one.startswith(EXPERIMENT_PREFIX)]:
        monkeypatch.delitem(sys.modules, name)  # as in a process of its own
    assert main(["evaluate", "run"]) == 0
    found = json.loads(pathlib.Path("run/eval.json").read_text())
    assert found["directions"]["day->table"]["decodable"] == 1
    assert "<table title=" in pathlib.Path("run/report.html").read_text()
    capsys.readouterr()
    assert main(["sample", "run", "--from", "day=Mon", "--to", "table", "--count", "3", "--out", "tables.txt"]) == 0
    for line in pathlib.Path("tables.txt").read_text().splitlines():
        assert 1 <= len(line.split(",")) <= 5
    assert main(["rank", "run", "--from", "table=Mon 9, Tue 10", "--to", "day", "--among", "Mon", "Tue"]) == 0
    assert capsys.readouterr().out.count(" bits ") == 2
