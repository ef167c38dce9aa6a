"""The MLPs of the benchmark in equinox with optax, under jit. Needs `pip install equinox optax`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax


def step(sizes: tuple[int, int, int], batch: int) -> Callable[[], Any]:
    """A training step with Adam, on random data, that is over when it returns."""
    n, hidden, classes = sizes
    keys = jax.random.split(jax.random.PRNGKey(0), 4)

    class Net(eqx.Module):
        first: eqx.nn.Linear
        second: eqx.nn.Linear

        def __call__(self, x: jax.Array) -> jax.Array:
            act = jnp.tanh if n == 2 else jax.nn.relu
            return self.second(act(self.first(x)))

    model = Net(eqx.nn.Linear(n, hidden, key=keys[0]), eqx.nn.Linear(hidden, classes, key=keys[1]))
    x, y = jax.random.normal(keys[2], (batch, n)), jax.random.randint(keys[3], (batch,), 0, classes)
    optimiser = optax.adam(1e-3)
    state = optimiser.init(eqx.filter(model, eqx.is_array))

    def loss(model: Net) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), y).mean()

    @eqx.filter_jit
    def update(model: Net, state: Any) -> tuple[Net, Any]:
        updates, state = optimiser.update(eqx.filter_grad(loss)(model), state)
        return eqx.apply_updates(model, updates), state

    def take() -> None:
        nonlocal model, state
        model, state = update(model, state)
        jax.block_until_ready(model.second.weight)

    return take
