import dataclasses
import functools
import itertools
import pathlib
import types
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_data
from goldens import check_golden
from jax.sharding import Mesh, PartitionSpec

from omnijax.config import Config, MeshConfig
from omnijax.data.pipeline import Batch
from omnijax.errors import ConfigError
from omnijax.experiment import load_experiment
from omnijax.model.shards import Shards
from omnijax.model.sizes import SIZES, resized
from omnijax.model.transformer import Transformer
from omnijax.step import sharding
from omnijax.step.sharding import make_mesh, parameter_spec, path_of, put_batch, rings, rings_of
from omnijax.step.state import Metrics, State, abstract_state, gradients_of, init_state, make_step

DIGITS = pathlib.Path(__file__).parents[1] / "experiments" / "digits.py"
GOLDENS = pathlib.Path(__file__).parent / "golden"
MESHES = {
    name: MeshConfig(*(int(size) for size in name.split("×")))
    for name in ("8×1×1×1", "1×8×1×1", "2×2×1×2", "1×1×8×1", "1×2×2×2", "2×2×2×1")
}


def some_of(cases: Iterable[str], *kept: str) -> list[Any]:
    """All cases. Those that aren't in `kept` are marked `proof`, so `make test` leaves them out."""
    return [case if case in kept else pytest.param(case, marks=pytest.mark.proof) for case in cases]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Config:
    """Small, with nothing in the way between the gradient and the first moment, and a first step that is no warm-up."""
    config = random_data.small_config(load_experiment(DIGITS), tmp_path_factory.mktemp("none"))
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, warmup_steps=0, clip_norm=1e9))


def mesh_of(config: MeshConfig) -> Mesh:
    return make_mesh(config, jax.devices()[: config.data * config.fsdp * config.context * config.tensor])


def one_step(config: Config, mesh: MeshConfig) -> tuple[State, State, Metrics]:
    """The fresh state (on the host), the state after a step, and what the step reports."""
    model, devices = Transformer(config.model, config.vocabulary.size), mesh_of(mesh)
    state = init_state(config, model, devices)
    fresh = jax.device_get(state)
    after, metrics = make_step(config, model, devices)(state, put_batch(devices, batch_of(config)))
    return fresh, after, jax.device_get(metrics)


def batch_of(config: Config) -> Batch:
    return random_data.batches_of(random_data.random_corpus(config.vocabulary, records=20, most_items=7), config.batch)[
        0
    ]


@pytest.fixture(scope="module")
def on_one_device(small: Config) -> tuple[State, State, Metrics]:
    return one_step(small, MeshConfig(1))


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_sharded_as_its_golden_says(size: str) -> None:
    config = resized(load_experiment(DIGITS), size)
    state = abstract_state(config, Transformer(config.model, config.vocabulary.size), mesh_of(MESHES["1×2×2×2"]))
    found = {
        path_of(keys): {
            "shape": leaf.shape,
            "spec": list(leaf.sharding.spec),
            "on a device": leaf.sharding.shard_shape(leaf.shape),
        }
        for keys, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    }
    when = "RULES of omnijax/step/sharding.py, or a size of omnijax/model/sizes.py, were meant to change"
    check_golden(GOLDENS / f"sharding_{size}.json", found, when)
    assert {axis for leaf in found.values() for axis in leaf["spec"]} == {None, "fsdp", "tensor"}


@pytest.mark.parametrize("name", some_of(MESHES, "2×2×1×2", "1×2×2×2"))
def test_a_step_on_a_mesh_is_the_step_on_one_device_and_sharded_as_the_table_says(
    small: Config, on_one_device: tuple[State, State, Metrics], name: str
) -> None:
    fresh_there, after_there, metrics_there = on_one_device
    fresh, after, metrics = one_step(small, MESHES[name])
    jax.tree.map(np.testing.assert_array_equal, fresh, fresh_there)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), metrics, metrics_there)
    # The first moment after the first step is the gradient, times 1 - beta1.
    scale = 1 - small.optim.beta1
    for one, other in zip(moments(after), moments(after_there), strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a / scale, b / scale, atol=1e-5), one, other)
    assert metrics.gradient_norm > 0.1
    assert int(after.step) == int(after_there.step) == 1
    for part in (after.params, *moments(after)):
        assert_sharded_as_the_table_says(part, dict(zip(sharding.AXES, dataclasses.astuple(MESHES[name]), strict=True)))


@pytest.mark.parametrize(
    "mesh, model, accumulate",
    [
        ("8×1×1×1", {"remat": "attention", "attention": "reference"}, 2),
        ("1×8×1×1", {"remat": "dots", "unroll": 2}, 1),
        ("1×1×8×1", {"remat": "full", "unroll": 2, "attention": "blocks"}, 4),
        pytest.param("1×2×2×2", {"remat": "full"}, 4, marks=pytest.mark.proof),
        pytest.param("1×2×2×2", {"unroll": 2, "attention": "reference"}, 1, marks=pytest.mark.proof),
        pytest.param("2×2×1×2", {"remat": "attention", "attention": "blocks"}, 2, marks=pytest.mark.proof),
    ],
)
def test_how_gradients_are_computed_changes_no_result(
    small: Config, on_one_device: tuple[State, State, Metrics], mesh: str, model: dict, accumulate: int
) -> None:
    changed = dataclasses.replace(
        small,
        model=dataclasses.replace(small.model, **model),
        optim=dataclasses.replace(small.optim, accumulate=accumulate),
    )
    fresh, after, metrics = on_one_device
    batch = {name: np.concatenate([rows] * 2) for name, rows in batch_of(small).items()}  # twice: the mean is the same
    variant, devices = Transformer(changed.model, changed.vocabulary.size), mesh_of(MESHES[mesh])
    compute = jax.jit(functools.partial(gradients_of, changed, variant, devices))
    gradients, parts = jax.device_get(compute(fresh.params, batch, jax.random.key(0)))
    np.testing.assert_allclose(parts.loss, 2 * metrics.parts.loss, rtol=1e-5)
    scale = 1 - small.optim.beta1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b / scale, atol=1e-5), gradients, moments(after)[0])


@pytest.mark.parametrize("axis", [0, 1])
def test_sums_scattered_ring_by_ring_are_those_scattered_at_once(axis: int) -> None:
    mesh = mesh_of(MESHES["1×8×1×1"])
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(16, 24)), jnp.float32)
    spec = PartitionSpec(*["fsdp" if number == axis else None for number in range(2)])

    def gradient(groups: tuple) -> jax.Array:
        shards = Shards(dict(mesh.shape), {"part": {"w": spec}}, "cpu", groups)

        def loss(w: jax.Array) -> jax.Array:
            mine = 1 + jax.lax.axis_index("fsdp").astype(jnp.float32)
            return jnp.sum(jnp.sin(mine * shards.whole("part", {"w": w}, jnp.float32)["w"]))

        return jax.jit(jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))(
            weights
        )

    expected = sum(mine * np.cos(mine * np.asarray(weights, np.float64)) for mine in range(1, 9))
    for groups in ((), rings(2, 4), rings(4, 2), rings(2, 2, 2)):
        np.testing.assert_allclose(gradient(groups), expected, rtol=1e-4, atol=1e-4)


class Chip(NamedTuple):
    """What `rings_of` looks at."""

    platform: str
    coords: tuple[int, int, int]


def test_rings_follow_the_dimensions_of_a_torus() -> None:
    def found(platform: str, shape: tuple[int, ...]) -> tuple:
        chips = np.empty(int(np.prod(shape)), object)
        chips[:] = [Chip(platform, place) for place in itertools.product(*(range(size) for size in shape))]
        return rings_of(types.SimpleNamespace(devices=chips.reshape(1, -1, 1, 1), shape={"fsdp": chips.size}))

    assert found("tpu", (2, 4, 1)) == rings(2, 4) == (((0, 4), (1, 5), (2, 6), (3, 7)), ((0, 1, 2, 3), (4, 5, 6, 7)))
    assert found("tpu", (2, 3, 2)) == rings(2, 3, 2)
    assert rings(2, 1, 2) == (((0, 2), (1, 3)), ((0,), (1,), (2,), (3,)), ((0, 1), (2, 3)))
    for platform, shape in (("tpu", (8, 1, 1)), ("tpu", (1, 1, 1)), ("cpu", (2, 4, 1))):
        assert found(platform, shape) == ()


def moments(state: State) -> list[dict]:
    """Trees of the optimiser state that are shaped like the parameters."""
    structure = jax.tree.structure(state.params)

    def alike(part: object) -> bool:
        return jax.tree.structure(part) == structure

    found = [part for part in jax.tree.leaves(state.opt_state, is_leaf=alike) if alike(part)]
    assert len(found) == 2
    return found


def assert_sharded_as_the_table_says(tree: dict, axes: dict[str, int]) -> None:
    """Looks at the arrays themselves: what each of the 8 devices holds."""
    for keys, array in jax.tree_util.tree_leaves_with_path(tree):
        spec = parameter_spec(path_of(keys), array.shape)
        parts = [1 if axis is None else axes[axis] for axis in spec] + [1] * (array.ndim - len(spec))
        shape = tuple(size // part for size, part in zip(array.shape, parts, strict=True))
        assert {shard.data.shape for shard in array.addressable_shards} == {shape}, path_of(keys)
        assert len(array.addressable_shards) == 8
        assert len({str(shard.index) for shard in array.addressable_shards}) == int(np.prod(parts)), path_of(keys)


def test_a_fresh_state_is_sharded_before_any_step(small: Config) -> None:
    state = init_state(small, Transformer(small.model, small.vocabulary.size), mesh_of(MESHES["2×2×1×2"]))
    for part in (state.params, *moments(state)):
        assert_sharded_as_the_table_says(part, {"data": 2, "fsdp": 2, "context": 1, "tensor": 2})
    held = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(state.params))
    whole = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert held < 0.4 * whole  # a quarter, and embedding and head are halved


def test_rows_of_a_batch_are_split_over_data_and_fsdp(small: Config) -> None:
    batch = batch_of(small)
    for name, rows in (("8×1×1×1", 1), ("1×8×1×1", 1), ("2×2×1×2", 2)):
        placed = put_batch(mesh_of(MESHES[name]), batch)
        for key, array in placed.items():
            assert {shard.data.shape[0] for shard in array.addressable_shards} == {rows}
            np.testing.assert_array_equal(array, batch[key])


def test_a_parameter_without_a_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="exactly one rule .* and 0 do") as caught:
        parameter_spec("layers/mlp/sideways", (2, 4, 4))
    assert caught.value.value == "layers/mlp/sideways"


def test_rules_that_clash_are_refused(monkeypatch) -> None:
    rules = (*sharding.RULES, (r"mlp/\w+", PartitionSpec("fsdp", None)))
    monkeypatch.setattr(sharding, "RULES", rules)
    with pytest.raises(ConfigError, match="and 2 do"):
        parameter_spec("layers/mlp/up", (2, 4, 4))


def test_a_rule_for_another_number_of_axes_is_refused() -> None:
    with pytest.raises(ConfigError, match="is for 3 axes"):
        parameter_spec("layers/mlp/up", (2, 4, 4, 4))


@pytest.mark.parametrize(
    "mesh, change, axis",
    [(MeshConfig(1, 8), {"width": 36}, "fsdp"), (MeshConfig(1, 1, 1, 4), {"kv_heads": 2}, "tensor")],
)
def test_a_mesh_that_does_not_divide_a_parameter_is_refused(
    small: Config, mesh: MeshConfig, change: dict, axis: str
) -> None:
    model = Transformer(dataclasses.replace(small.model, **change), small.vocabulary.size)
    with pytest.raises(ConfigError, match=rf"must divide by the \d devices of mesh\.{axis}"):
        abstract_state(small, model, mesh_of(mesh))


@pytest.mark.parametrize(
    "sizes",
    [(3, 1, 1, 1), (2, 2, 1, 1), (16, 1, 1, 1), (-1, -1, 1, 1), (-1, 3, 1, 1), (0, 1, 1, 1), (-1, 1, 1, 16)],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(sizes: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConfigError, match="must multiply to the 8 devices") as caught:
        make_mesh(MeshConfig(*sizes))
    assert caught.value.field == "mesh"


def test_what_is_left_of_the_devices_goes_to_the_open_axis() -> None:
    assert dict(make_mesh(MeshConfig(-1, 2, 1, 2)).shape) == {"data": 2, "fsdp": 2, "context": 1, "tensor": 2}
    assert dict(make_mesh(MeshConfig()).shape) == {"data": 8, "fsdp": 1, "context": 1, "tensor": 1}


def test_rows_that_do_not_divide_over_the_mesh_are_refused(small: Config) -> None:
    model = Transformer(small.model, small.vocabulary.size)
    for change in (
        {"batch": dataclasses.replace(small.batch, size=12)},
        {"optim": dataclasses.replace(small.optim, accumulate=2)},
    ):
        with pytest.raises(ConfigError, match="must divide by") as caught:
            make_step(dataclasses.replace(small, **change), model, make_mesh(MeshConfig()))
        assert (caught.value.field, caught.value.fix) == ("batch.size", "use 16")
