"""Losses of classes as a mean over a distribution: `sum_j w_j fn(p_j)`, p a softmax."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxloss import _classes, stable


def of_classes(
    fn: Callable[..., jax.Array],
    variant: int,
    x: jax.Array,
    w: jax.Array,
    hyper: jax.Array,
) -> jax.Array:
    """`w fn(p, 1 - p, -log p, hyper)` of each class."""
    ways = stable.softmax_likelihoods(x, variant)
    return _classes.weighted(w, fn(*ways, hyper))


def of_terms(
    total: Callable[..., jax.Array], slope: Callable[..., jax.Array]
) -> Callable[..., jax.Array]:
    """`total`, a sum over classes, of logits, weights and a hyperparameter like them.

    The slope of each term by the negative log-likelihood is a function as in
    `of_classes`.
    """
    primitive = jax.custom_jvp(total)

    def rule(primals, tangents):
        x, w, hyper = primals
        by_x, *others = tangents
        moved = jnp.zeros_like(x[..., 0])
        if not isinstance(by_x, SymbolicZero):
            # Of variants, or XLA:GPU writes out what value and gradient share.
            pull = [of_classes(slope, variant, x, w, hyper) for variant in (1, 2)]
            moved = moved + jnp.sum(stable.softmax_slope(x, *pull) * by_x, axis=-1)
        if not all(isinstance(t, SymbolicZero) for t in others):
            given = [
                jnp.zeros_like(w) if isinstance(t, SymbolicZero) else t for t in others
            ]
            along = functools.partial(total, x)
            moved = moved + jax.jvp(along, (w, hyper), tuple(given))[1]
        return primitive(*primals), moved

    primitive.defjvp(rule, symbolic_zeros=True)
    return primitive
