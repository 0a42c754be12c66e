"""Fields of several parts, and fields that share a modality: generated, completed, measured, scored and ranked."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sampling import Gallery, gallery, untrained

from omnijax.config import Config, EvalConfig, Route, SampleConfig, Task
from omnijax.data.corpus import Corpus, encode_records
from omnijax.data.fitting import fitted
from omnijax.errors import ConfigError, DataError
from omnijax.evaluate import EvaluatedSplit, Trained, TrainedRun, tasks
from omnijax.evaluate.likelihoods import TOTAL, bits_per_item, document_sums, forms_of
from omnijax.evaluate.tasks import measure_directions
from omnijax.modalities import Items
from omnijax.sample.decode_loop import Programs
from omnijax.sample.document_grammar import grammar_of
from omnijax.sample.generate import documents_of
from omnijax.source import SEQUENCE
from omnijax.vocab.encode import encode
from omnijax.vocab.ids import PrimaryIds
from omnijax.vocab.likelihood import token_bits
from omnijax.vocab.vocabulary import PAD

NAME_TO_PHOTO = Task(("name", "photo"), weights=(0.0, 1.0))
TASKS = (
    NAME_TO_PHOTO,
    Task(("title", "sketch"), weights=(1.0, 1.0)),
    Task((SEQUENCE,), weights=(1.0,)),
)
EVERY_PICTURE = [
    np.array(pixels, np.uint8).reshape(height, width)
    for height, width in itertools.product((1, 2), (1, 2))
    for pixels in itertools.product((0, 1), repeat=height * width)
]
NAME = np.array([3, 5])
COUNT = 64
"""Documents that are drawn side by side: always as many, so that programs are compiled once."""


@pytest.fixture(scope="module")
def drawing() -> TrainedRun:
    """Goes from a name to a photo, and nowhere else."""
    return untrained(gallery(NAME_TO_PHOTO))


@pytest.fixture(scope="module")
def config() -> Config:
    return gallery(*TASKS)


@pytest.fixture(scope="module")
def everything(config: Config) -> TrainedRun:
    """Goes from a title to a sketch, too, and reads interleaved documents."""
    return untrained(config)


@pytest.fixture(scope="module")
def corpus(config: Config) -> Corpus:
    records = config.data.records("validation")
    return encode_records(config, records, (*config.data.fields, SEQUENCE), fitted(config.data))


def key_of(picture: np.ndarray) -> tuple[Any, ...]:
    return picture.shape, tuple(picture.ravel().tolist())


def bits_of(run: TrainedRun) -> dict[tuple[Any, ...], float]:
    """Bits of every picture, given the name."""
    scores = [run.score({"name": NAME, "photo": picture}) for picture in EVERY_PICTURE]
    assert all(list(score) == ["photo|name"] for score in scores)
    return {key_of(one): score["photo|name"].bits for one, score in zip(EVERY_PICTURE, scores, strict=True)}


@pytest.fixture(scope="module")
def exact(drawing: TrainedRun) -> dict[tuple[Any, ...], float]:
    return bits_of(drawing)


# ---------------------------------------------------------------------- exact likelihoods


def test_records_are_scored_together_as_alone(everything: TrainedRun) -> None:
    records = [{"name": NAME, "photo": picture} for picture in EVERY_PICTURE[::5]]
    records.insert(2, {"title": NAME, "sketch": EVERY_PICTURE[3]})
    together = everything.score_batch(records)
    for record, found in zip(records, together, strict=True):
        alone = everything.score(record)
        assert list(found) == list(alone)
        for name, (bits, items) in alone.items():
            assert found[name].items == items
            assert found[name].bits == pytest.approx(bits, rel=1e-4)
    assert set(together[2]) != set(together[1])
    with pytest.raises(ConfigError, match="record 1"):
        everything.score_batch([records[0], {"photo": EVERY_PICTURE[0]}, records[1]])
    with pytest.raises(DataError, match="record 3"):
        everything.score_batch([records[0], records[2], records[1], {"name": NAME[:0], "photo": EVERY_PICTURE[0]}])
    assert everything.score_batch([]) == []


def test_probabilities_of_all_pictures_of_all_sizes_sum_to_one(exact: dict) -> None:
    assert len(exact) == 2 + 4 + 4 + 16
    assert sum(2.0**-bits for bits in exact.values()) == pytest.approx(1, abs=1e-4)


def test_answers_are_ranked_by_their_exact_likelihood(drawing: TrainedRun, exact: dict) -> None:
    ranked = drawing.rank({"name": NAME}, EVERY_PICTURE)
    assert [one.bits for one in ranked] == sorted(one.bits for one in ranked)
    assert {key_of(one.answer) for one in ranked} == set(exact)
    for one in ranked:
        assert one.bits == pytest.approx(exact[key_of(one.answer)], abs=1e-4)
        assert one.probability == pytest.approx(2.0**-one.bits, abs=1e-4)  # these are all pictures
    few = drawing.rank({"name": NAME}, EVERY_PICTURE[:3], to="photo")
    shares = [2.0 ** -exact[key_of(one.answer)] for one in few]
    np.testing.assert_allclose([one.probability for one in few], np.array(shares) / sum(shares), atol=1e-4)
    assert sum(one.probability for one in few) == pytest.approx(1)


def test_samples_are_as_frequent_as_they_are_likely(drawing: TrainedRun, exact: dict) -> None:
    """A chi-square test over all pictures; those that are rare count as one."""
    draws = 40 * COUNT
    counts = dict.fromkeys(exact, 0)
    for seed in range(40):
        for picture in drawing.sample_batch([{"name": NAME}] * COUNT, "photo", seed):
            counts[key_of(picture)] += 1
    assert sum(counts.values()) == draws
    expected = {one: draws * 2.0**-bits for one, bits in exact.items()}
    often = [one for one, number in expected.items() if number >= 5]
    assert len(often) > 10
    found, wanted = ([numbers[one] for one in often] for numbers in (counts, expected))
    found, wanted = [*found, draws - sum(found)], [*wanted, draws - sum(wanted)]
    statistic = sum((a - b) ** 2 / b for a, b in zip(found, wanted, strict=True) if b > 1e-6)
    assert scipy.stats.chi2.sf(statistic, len(often)) > 0.01


def test_a_known_number_of_items_costs_nothing_where_the_document_ends(drawing: TrainedRun) -> None:
    """The header says how many patches there are, so that neither the next marker nor the end is a choice."""
    form = forms_of(drawing.config)[0]._replace(learned=(True, True))
    items = {"name": drawing.encode("name", [NAME[:1]] * 26), "photo": drawing.encode("photo", EVERY_PICTURE)}
    of_run = drawing.config, drawing.generator.model, drawing.generator.params
    sums = document_sums(*of_run, documents_of(drawing.config, items), form)
    assert sums["accepted"].all()
    some = document_sums(*of_run, documents_of(drawing.config, items), form, TOTAL)
    assert list(some) == list(TOTAL)
    for name, values in some.items():
        np.testing.assert_allclose(values, sums[name], rtol=1e-5, atol=1e-5)
    last = document_sums(*of_run, documents_of(drawing.config, items), form._replace(learned=(False, True)))
    np.testing.assert_allclose(last["renormalised"][:, 1], sums["renormalised"][:, 1], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(sums["structure"][:, 1], 0, atol=1e-5)
    assert (sums["structure"][:, 0] > 0.01).all()  # how long a name is isn't known
    np.testing.assert_array_equal(sums["items"][:, 1], [1 + picture.size for picture in EVERY_PICTURE])


def test_what_can_not_be_scored_or_ranked_is_refused(drawing: TrainedRun, everything: TrainedRun) -> None:
    with pytest.raises(ConfigError, match="give all fields of one of them"):
        drawing.score({"photo": EVERY_PICTURE[0]})
    with pytest.raises(DataError, match="at least one answer"):
        drawing.rank({"name": NAME}, [])
    with pytest.raises(ConfigError, match="the tasks are name → photo"):
        drawing.rank({}, [NAME])
    with pytest.raises(ConfigError, match="the tasks are name → photo"):
        drawing.rank({"name": NAME}, [NAME], to="title")
    with pytest.raises(DataError, match="at most 2 × 2 pixels"):
        drawing.rank({"name": NAME}, [np.zeros((3, 3), np.uint8)])
    with pytest.raises(ConfigError, match="the fields are name, title, photo, sketch"):
        drawing.encode("smell", [NAME])
    with pytest.raises(DataError, match="all records of a batch have the same fields"):
        drawing.sample_batch([{"name": NAME}, {}], "photo")
    with pytest.raises(ConfigError, match="the run goes name → photo"):
        drawing.sample({"title": NAME}, "photo")
    assert drawing.predicted({"name": NAME}) == "photo"
    assert drawing.sample_batch([], "photo") == []
    # A field that no task opens a document with can't be ranked by itself.
    assert everything.predicted({}) == "title"


# ---------------------------------------------------------------------- a header, then as many items as it says


def test_one_program_draws_pictures_of_all_sizes(drawing: TrainedRun) -> None:
    made = drawing.sample_batch([{"name": NAME}] * COUNT, "photo", seed=0)
    compiled = [program._cache_size() for program in (Programs.begin, Programs.chunk)]
    again = drawing.sample_batch([{"name": NAME}] * COUNT, "photo", seed=1)
    assert [one.tolist() for one in again] != [one.tolist() for one in made]
    more = [drawing.sample_batch([{"name": NAME}] * COUNT, "photo", seed=seed) for seed in range(2, 8)]
    assert {picture.shape for one in (made, again, *more) for picture in one} == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert [program._cache_size() for program in (Programs.begin, Programs.chunk)] == compiled


def test_items_are_a_header_and_the_patches_that_it_says(drawing: TrainedRun) -> None:
    given = {"name": drawing.encode("name", [NAME] * COUNT)}
    found = drawing.generator.generate(given, "photo", jax.random.key(0))
    assert found.decodable.all()
    for items in found.items:
        height, width = items.of(0, 2)[0] + 1
        assert items.part.tolist() == [0] + [1] * int(height * width)


def test_without_the_grammar_nothing_keeps_the_header_and_few_can_be_read(drawing: TrainedRun) -> None:
    given = {"name": drawing.encode("name", [NAME] * COUNT)}
    found = drawing.generator.generate(given, "photo", jax.random.key(0), SampleConfig(grammar=False))
    assert found.decodable.mean() < 0.5
    modality = drawing.modalities["photo"]
    for items, good in zip(found.items, found.decodable, strict=True):
        if good:
            modality.decode(items)


def test_completed_pictures_keep_their_size_and_what_is_known(everything: TrainedRun) -> None:
    modality = everything.modalities["photo"]
    pictures = [EVERY_PICTURE[number % 26] for number in range(COUNT)]
    items = everything.encode("photo", pictures)
    known = [modality.given("left", one) for one in items]
    key = jax.random.key(0)
    behind = {"name": everything.encode("name", [NAME] * len(items))}
    found = everything.generator.complete("photo", items, known, key, behind)
    assert found.decodable.all()
    made = [modality.decode(one) for one in found.items]
    assert [one.shape for one in made] == [one.shape for one in pictures]
    for one, picture in zip(made, pictures, strict=True):
        np.testing.assert_array_equal(one[:, :1], picture[:, :1])
    others = [Items(one.part, np.where(mask[:, None], one.digits, 1), one.counts)
              for one, mask in zip(items, known, strict=True)]  # fmt: skip
    again = everything.generator.complete("photo", others, known, key, behind)
    for one, other in zip(found.items, again.items, strict=True):
        np.testing.assert_array_equal(one.digits, other.digits)


def test_a_direction_to_pictures_of_all_sizes_is_measured(everything: TrainedRun, config: Config) -> None:
    """Also without the grammar; and a record that lacks one of the fields is left out."""
    evaluated = EvalConfig(routes=(Route(("name", "photo")),), examples=COUNT, batch_size=COUNT, show=3)
    evaluated = dataclasses.replace(config, eval=evaluated)
    generator = dataclasses.replace(everything.generator, config=evaluated)
    split = EvaluatedSplit(evaluated)
    found = measure_directions(Trained(evaluated, generator, 0), split).figures["directions"]["name->photo"]
    assert (found["examples"], found["decodable"]) == (COUNT, 1.0)
    assert found["decodable_without_grammar"] < 1
    assert "accuracy" not in found  # nothing judges it
    assert split.having(["title", "sketch"]).tolist() == [place for place in range(COUNT) if place % 3]
    alone = EvaluatedSplit(dataclasses.replace(evaluated, eval=dataclasses.replace(evaluated.eval, examples=1)))
    with pytest.raises(DataError, match="none of the first 1 records of validation has all of these fields"):
        alone.having(["sketch"])


# ---------------------------------------------------------------------- fields that share a modality


def test_fields_of_one_modality_have_markers_of_their_own(everything: TrainedRun, config: Config) -> None:
    """The same items are written behind another marker, and read back as the same; the model answers otherwise."""
    v = config.vocabulary
    items = everything.encode("photo", EVERY_PICTURE)
    rows = {
        name: [tokens.array for tokens in encode(v, documents_of(config, {name: items})).split()]
        for name in ("photo", "sketch")
    }
    for one, other in zip(rows["photo"], rows["sketch"], strict=True):
        assert (one[0], other[0]) == (v.token("photo"), v.token("sketch"))
        np.testing.assert_array_equal(one[1:], other[1:])
    key, names = jax.random.key(2), everything.encode("name", [NAME] * COUNT)
    photos = everything.generator.generate({"name": names}, "photo", key)
    sketches = everything.generator.generate({"name": names}, "sketch", key)
    titled = everything.generator.generate({"title": names}, "sketch", key)
    assert photos.decodable.all() & sketches.decodable.all() & titled.decodable.all()
    for one, other in ((photos, sketches), (sketches, titled)):
        pairs = zip(one.items, other.items, strict=True)
        assert any(a.digits.shape != b.digits.shape or (a.digits != b.digits).any() for a, b in pairs)


# ---------------------------------------------------------------------- missing fields, interleaved documents


@pytest.fixture(scope="module")
def measured(everything: TrainedRun, config: Config, corpus: Corpus) -> dict:
    generator = everything.generator
    return bits_per_item(config, generator.model, generator.params, corpus, 20)


def test_a_form_takes_the_records_that_have_its_fields(measured: dict) -> None:
    assert {name: entry["records"] for name, entry in measured.items()} == {
        "photo|name": 20,
        "title": 13,
        "sketch|title": 13,
        SEQUENCE: 20,
    }


def test_items_and_structure_are_all_that_a_document_costs(
    everything: TrainedRun, config: Config, corpus: Corpus, measured: dict
) -> None:
    """Sums over whole documents, with a grammar that knows the bounds of each segment behind a header."""
    generator, grammar = everything.generator, grammar_of(config)
    params = jax.tree.map(jnp.asarray, generator.params)

    @jax.jit
    def renormalised(tokens: jax.Array, exactly: jax.Array) -> jax.Array:
        """Bits of each token but the first under the grammar."""
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        logits = generator.model(params, tokens, positions, jnp.zeros_like(tokens))
        _, legal = grammar.read(grammar.start_state(1, exactly, exactly), PrimaryIds(tokens))
        return token_bits(logits[:, :-1], PrimaryIds(tokens[:, 1:]), legal[:, 1:]).renormalised

    for form in forms_of(config):
        places = corpus.having(form.fields)
        documents = corpus.documents(places[places < 20], form.fields)
        total = np.zeros(len(documents.document_segments))
        for number, segments in enumerate(documents.to_list()):
            patches = config.vocabulary.control.index("picture.patch")
            exactly = [len(one.spaces) if one.marker == patches else -1 for one in segments]
            exactly = jnp.asarray(np.pad(np.array(exactly, np.int32), (0, 8 - len(exactly)), constant_values=-1)[None])
            tokens = encode(config.vocabulary, corpus.documents(places[number : number + 1], form.fields)).tokens.array
            padded = np.pad(tokens, (0, 80 - len(tokens)), constant_values=PAD)[None]
            total[number] = np.asarray(renormalised(jnp.asarray(padded), exactly))[0, : len(tokens) - 1].sum()
        learned = [measured[form.name(n)] for n, good in enumerate(form.learned) if good]
        said = sum(entry["renormalised"] * entry["items"] + entry["structure"] for entry in learned)
        if all(form.learned):
            assert said == pytest.approx(total.mean(), rel=1e-4), form
        else:
            assert said < total.mean(), form


class Interleaved(Gallery):
    """Interleaved documents, and nothing else."""

    def records(self, split: str) -> Any:
        return [{SEQUENCE: record[SEQUENCE]} for record in super().records(split)]


def test_records_of_nothing_but_interleaved_documents_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their fields have no signals of their own, so that nothing is measured per natural unit."""
    config = dataclasses.replace(gallery(TASKS[2]), data=Interleaved())
    monkeypatch.setattr(tasks, "bits_per_item", lambda *given: {"records": given[4], "units": given[5]})
    found = tasks.measure_bits(Trained(config, untrained(config).generator, 0), EvaluatedSplit(config)).figures
    assert found == {"bits_per_item": {"records": COUNT, "units": {}}, "anchors": {}}


def test_the_grammar_accepts_every_interleaved_document_and_no_broken_one(config: Config, corpus: Corpus) -> None:
    v, grammar = config.vocabulary, grammar_of(gallery(TASKS[2]))
    accepts = jax.jit(lambda tokens: grammar.accepts(PrimaryIds(tokens)))
    rows = [row.array for row in encode(v, corpus.documents(range(len(corpus)), (SEQUENCE,))).split()]
    longest = max(map(len, rows))
    whole = np.stack([np.pad(row, (0, longest - len(row)), constant_values=PAD) for row in rows])
    assert accepts(jnp.asarray(whole)).all()
    assert len({row[0] for row in rows}) == 4  # any field can begin
    alone = np.where(whole == v.token("picture.patch"), v.token("photo"), whole)  # a header without its patches
    broken = (alone != whole).any(axis=1)
    assert broken.any()
    assert not accepts(jnp.asarray(alone))[broken].any()
