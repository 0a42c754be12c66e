"""What `omnijax plan` reads off a compiled module, held against programs whose collectives and products are known."""

import functools
import importlib.util
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from omnijax.plan.collectives import Network, collectives_of, replica_groups, totals
from omnijax.plan.hlo import Instruction, read_module
from omnijax.plan.needs import cycles_of
from omnijax.plan.programs import unsaved
from omnijax.plan.topology import Topology, find_topology

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs libtpu, of the extra [tpu]",
)
TOPOLOGIES = ["cpu:8", pytest.param("v5e:2x4", marks=needs_libtpu)]
ROUNDS, WIDTH = 5, 256
pytestmark = pytest.mark.usefixtures("optimised")


def mesh_of(topology: str, shape: tuple[int, ...], names: tuple[str, ...]) -> tuple[Mesh, Network]:
    found = find_topology(topology)
    mesh = mesh_over(found, shape, names)
    return mesh, found.network(mesh)


def mesh_over(found: Topology, shape: tuple[int, ...], names: tuple[str, ...]) -> Mesh:
    """In the order of the devices, so that what a test expects of groups doesn't depend on the torus."""
    return Mesh(np.array(found.devices).reshape(shape), names, axis_types=(AxisType.Auto,) * len(names))


def compiled_text(program, *shapes: jax.ShapeDtypeStruct) -> str:
    with unsaved():
        return jax.jit(program).lower(*shapes).compile().as_text()


def read(text: str, network: Network):
    return {
        (row["kind"], tuple(row["axes"])): (row["count"], row["bytes"])
        for row in totals(collectives_of(read_module(text), network))
    }


# ---------------------------------------------------------------------- programs whose collectives are known


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_collectives_count_by_the_rounds_of_their_loops(topology: str) -> None:
    mesh, network = mesh_of(topology, (2, 4), ("data", "fsdp"))

    def local(weights_lde, x_bd):
        def layer(x_bd, weights_de):
            return jnp.tanh(x_bd @ lax.all_gather(weights_de, "fsdp", axis=0, tiled=True)), None

        x_bd = lax.scan(layer, x_bd, weights_lde)[0]
        return lax.psum(jnp.sum(x_bd), ("data", "fsdp")), lax.psum_scatter(x_bd, "fsdp", tiled=True)

    split = PartitionSpec(None, "fsdp")
    program = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(split, PartitionSpec("data")),
        out_specs=(PartitionSpec(), PartitionSpec(("data", "fsdp"))),
        check_vma=False,
    )
    weights = jax.ShapeDtypeStruct((ROUNDS, WIDTH, WIDTH), jnp.float32, sharding=NamedSharding(mesh, split))
    x = jax.ShapeDtypeStruct((64, WIDTH), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))
    found = read(compiled_text(program, weights, x), network)
    assert found[("all-reduce", ("data", "fsdp"))] == (1, 4)
    assert found[("reduce-scatter", ("fsdp",))] == (1, 32 * WIDTH * 4)
    gathers = found[("all-gather", ("fsdp",))]
    # TPU's compiler may gather in bfloat16 what its matrix units read in bfloat16 anyway.
    assert gathers[0] == ROUNDS
    assert gathers[1] in (ROUNDS * WIDTH * WIDTH * 4, ROUNDS * WIDTH * WIDTH * 2)
    assert len(found) == 3


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_permutes_and_all_to_alls_are_found_with_their_axes(topology: str) -> None:
    mesh, network = mesh_of(topology, (2, 4), ("data", "context"))

    def local(x_bd):
        x_bd = lax.ppermute(x_bd, "context", [(i, (i + 1) % 4) for i in range(4)])
        return lax.all_to_all(x_bd * 2, "data", 1, 0, tiled=True)

    everywhere = PartitionSpec(("data", "context"))
    program = jax.shard_map(local, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)
    x = jax.ShapeDtypeStruct((512, WIDTH), jnp.float32, sharding=NamedSharding(mesh, everywhere))
    found = read(compiled_text(program, x), network)
    assert found == {
        ("collective-permute", ("context",)): (1, 64 * WIDTH * 4),
        ("all-to-all", ("data",)): (1, 64 * WIDTH * 4),
    }


@needs_libtpu
def test_what_crosses_slices_is_told_apart() -> None:
    found = find_topology("v5e:2x2", slices=2)
    mesh = mesh_over(found, (2, 4), ("data", "fsdp"))
    network = found.network(mesh)
    assert network.slices == (0, 0, 0, 0, 1, 1, 1, 1)
    program = jax.shard_map(
        lambda x: (lax.psum(x, "fsdp"), lax.psum(x * 2, "data")),
        mesh=mesh,
        in_specs=PartitionSpec(("data", "fsdp")),
        out_specs=(PartitionSpec("data"), PartitionSpec("fsdp")),
        check_vma=False,
    )
    x = jax.ShapeDtypeStruct((8 * WIDTH, WIDTH), jnp.float32)
    module = read_module(compiled_text(program, x))
    crosses = {one.axes: one.between_slices for one in collectives_of(module, network)}
    assert crosses[("fsdp",)] is False
    assert crosses[("data",)] is True


def test_a_loop_counts_like_the_same_rounds_one_after_the_other() -> None:
    mesh, network = mesh_of("cpu:8", (8,), ("fsdp",))

    def local(unroll, weights_lde, x_bd):
        def layer(x_bd, weights_de):
            x_bd = x_bd @ lax.all_gather(weights_de, "fsdp", axis=0, tiled=True)
            return lax.scan(lambda x, _: (jnp.sin(x @ x), None), x_bd, None, length=3, unroll=min(unroll, 3))[0], None

        return lax.scan(layer, x_bd, weights_lde, unroll=unroll)[0]

    texts = []
    for unroll in (1, ROUNDS):
        program = jax.shard_map(
            functools.partial(local, unroll),
            mesh=mesh,
            in_specs=(PartitionSpec(None, "fsdp"), PartitionSpec()),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        weights = jax.ShapeDtypeStruct((ROUNDS, 64, 64), jnp.float32)
        texts.append(compiled_text(program, weights, jax.ShapeDtypeStruct((64, 64), jnp.float32)))
    assert read(texts[0], network) == read(texts[1], network) == {("all-gather", ("fsdp",)): (5, 5 * 64 * 64 * 4)}
    assert " while(" in texts[0]
    assert " while(" not in texts[1]


def test_a_loop_that_its_data_end_counts_with_the_rounds_that_are_given() -> None:
    def program(x):
        return lax.while_loop(lambda x: jnp.sum(x) < 10, lambda x: x @ x, x)

    module = read_module(compiled_text(program, jax.ShapeDtypeStruct((8, 8), jnp.float32)), open_rounds=7)
    assert module.open_loops == 1
    assert {call.times for call in module.calls if call.open and not call.fused} == {7, 8}  # of the body, the condition


# ---------------------------------------------------------------------- a module written by hand


BY_HAND = (pathlib.Path(__file__).parent / "golden" / "plan" / "by_hand.hlo.txt").read_text()


def test_a_module_by_hand_background_scatters_and_a_counter_of_constants() -> None:
    network = Network({"data": 2, "fsdp": 4}, (0, 0, 0, 0, 1, 1, 1, 1))
    collectives = collectives_of(read_module(BY_HAND), network)
    found = {(one.kind, *one.axes): one for one in collectives}
    assert len(collectives) == len(found)  # the pieces of one in the background are one
    gather, elsewhere = found.pop(("all-gather", "fsdp")), found.pop(("all-gather", "data"))
    scatter, permute = found.pop(("reduce-scatter", "data")), found.pop(("collective-permute", "fsdp"))
    between = found.pop(("all-reduce", "data"))
    assert not found  # the last one of the module is with itself
    assert (gather.times, gather.bytes, gather.axes, gather.background) == (5, 16 * 8 * 2, ("fsdp",), True)
    assert (scatter.times, scatter.bytes, scatter.axes, scatter.background) == (5, 16 * 8 * 4, ("data",), False)
    assert (gather.between_slices, scatter.between_slices) == (False, True)
    assert (permute.times, permute.bytes, permute.axes, permute.background) == (1, 512, ("fsdp",), True)
    assert (elsewhere.times, elsewhere.bytes, elsewhere.background) == (5, 8 * 8 * 2, True)
    assert (between.times, between.bytes, between.axes, between.background) == (1, 512, ("data",), True)
    assert (between.devices, between.between_slices, between.wire_bytes) == (2, True, 512)
    assert gather.wire_bytes == 0.75 * gather.bytes
    assert scatter.wire_bytes == 0.5 * scatter.bytes
    assert permute.wire_bytes == permute.bytes


def test_cycles_are_the_compilers_where_it_has_an_estimate() -> None:
    text = (
        "ENTRY %main (x: f32[8]) -> f32[8] {\n"
        "  %x = f32[8]{0} parameter(0)\n"
        '  %y = f32[8]{0} negate(%x), backend_config={"window_config":{"estimated_cycles":"70"}}\n'
        '  %z = f32[8]{0} negate(%y), backend_config={"window_config":{"estimated_cycles":"9223372036854775807"}}\n'
        "  ROOT %w = f32[8]{0} negate(%z)\n"
        "}\n"
    )
    assert cycles_of(read_module(text)) == 70


@pytest.mark.parametrize(
    ("type", "size"),
    [
        ("bf16[4,8]{1,0:T(8,128)(2,1)S(1)}", 64),
        ("(s32[], bf16[4,8]{1,0}, /*index=2*/(f32[16,8]{1,0}, token[]))", 4 + 64 + 512),
        ("(pred[3], s4[3]{0}, f8e4m3fn[3], c64[3])", 3 + 2 + 3 + 24),
    ],
)
def test_bytes_of_a_type(type: str, size: int) -> None:
    assert Instruction("x", type, "copy", "%y", "").bytes == size


@pytest.mark.parametrize("text", ["", "HloModule empty", "ENTRY main { }"])
def test_what_is_no_module_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="compiled module"):
        read_module(text)


GROUPS = {
    "replica_groups={{0,1,2,3},{4,5,6,7}}": [[0, 1, 2, 3], [4, 5, 6, 7]],
    "replica_groups=[2,4]<=[8]": [[0, 1, 2, 3], [4, 5, 6, 7]],
    "replica_groups=[4,2]<=[2,4]T(1,0)": [[0, 4], [1, 5], [2, 6], [3, 7]],
    "replica_groups=[4,2]<=[2,2,2]T(0,2,1)": [[0, 2], [1, 3], [4, 6], [5, 7]],
    "replica_groups=mesh['a'=2,'b'=4] {'b'}": [[0, 1, 2, 3], [4, 5, 6, 7]],
    "replica_groups=mesh['a'=2,'b'=4] {'a'}": [[0, 4], [1, 5], [2, 6], [3, 7]],
    "replica_groups=mesh['a'=2,'b'=2,'c'=2] {'a','c'}": [[0, 1, 4, 5], [2, 3, 6, 7]],
    "replica_groups={}": [[0, 1, 2, 3, 4, 5, 6, 7]],
    "source_target_pairs={{0,1},{1,0},{3,3}}": [[0, 1], [1, 0]],
}


@pytest.mark.parametrize("text", GROUPS)
def test_groups_in_every_form(text: str) -> None:
    one = Instruction("x", "f32[]", "all-reduce", "%y", f", channel_id=1, {text}, to_apply=%add")
    np.testing.assert_array_equal(replica_groups(one, 8), GROUPS[text])


def test_groups_in_a_new_form_are_an_error() -> None:
    one = Instruction("x", "f32[]", "all-reduce", "%y", ", replica_groups=mesh['a':(1)2=4] {'a'}, x=1")
    with pytest.raises(ValueError, match="unknown form"):
        replica_groups(one, 8)


def test_links_of_a_group_are_the_directions_of_the_torus_that_it_lies_in() -> None:
    places = tuple((x, y, 0) for x in range(2) for y in range(4))
    network = Network({"data": 2, "fsdp": 4}, (0,) * 8, places, (1, 2, 1))
    found = collectives_of(read_module(BY_HAND), network)  # in one slice, so that nothing is in between
    assert {(one.kind, *one.axes, one.links) for one in found} == {
        ("all-gather", "fsdp", 2),
        ("all-gather", "data", 1),
        ("reduce-scatter", "data", 1),
        ("collective-permute", "fsdp", 2),
    }
    assert math.prod(network.axes.values()) == len(places)
