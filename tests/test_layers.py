import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omnijax.model.layers import PRODUCT, linear


@pytest.mark.parametrize("inside, outside", [(6, (8,)), (8, (6,)), (8, (8,)), (6, (2, 5)), (10, (2, 3))])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_linear_is_the_plain_product_and_so_are_its_gradients(
    inside: int, outside: tuple[int, ...], dtype: jax.typing.DTypeLike
) -> None:
    random = np.random.default_rng(0)
    x, weight = (random.normal(size=shape) for shape in ((2, 3, inside), (inside, *outside)))
    seed = random.normal(size=(2, 3, *outside))
    y, backward = jax.vjp(jax.jit(linear), jnp.asarray(x, dtype), jnp.asarray(weight, dtype))
    by_x, by_weight = backward(jnp.asarray(seed, dtype))
    flat = weight.reshape(inside, -1)
    wanted = (
        (x @ flat).reshape(seed.shape),
        (seed.reshape(2, 3, -1) @ flat.T).reshape(x.shape),
        (x.reshape(-1, inside).T @ seed.reshape(6, -1)).reshape(weight.shape),
    )
    for found, value in zip((y, by_x, by_weight), wanted, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(np.asarray(found, np.float64), value, atol=1e-5 if dtype == jnp.float32 else 0.1)


def test_a_remat_policy_still_sees_the_product() -> None:
    """`model.remat = "dots"` keeps results of products with weights: they aren't computed again."""
    policy = jax.checkpoint_policies.save_only_these_names(PRODUCT)

    def twice(x: jax.Array, weight: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(linear(jnp.cos(linear(x, weight)), weight)))

    x, weight = jnp.ones((4, 3)), jnp.ones((3, 3))
    kept, nothing = (
        len(jax.tree.leaves(jax.vjp(jax.checkpoint(twice, policy=chosen), x, weight)[1]))
        for chosen in (policy, jax.checkpoint_policies.nothing_saveable)
    )
    assert kept == nothing + 2
