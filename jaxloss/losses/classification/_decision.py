"""Losses of one logit: `a y f(x) + b (1 - y) f(-x)` of one function f of the log-odds.

f(x) is the loss of a positive label with log-odds x.  It and its derivatives are given
as formulas of the `Odds` of that label and of hyperparameters.  This module derives the
mixture of both labels from them, and what the compiler needs, once for all losses:

    @_decision.term(_f_dx, _f_dgamma)  # each a term again
    def _f(label, gamma):
        return jnp.power(label.q, gamma) * label.nll

    _loss = _decision.mixture(_f)  # of x, y, gamma
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxloss import stable
from jaxloss.stable import xla

Elementwise = Callable[..., jax.Array]
Scalar = float | jax.Array


# --- one label of a decision -------------------------------------------------------


class Odds(NamedTuple):
    """Five forms of the odds of a label, each accurate where others are not."""

    p: jax.Array
    """Its probability."""
    q: jax.Array
    """`1 - p`."""
    nll: jax.Array
    """`-log p`, finite."""
    complement_nll: jax.Array
    """`-log q`, finite."""
    log_odds: jax.Array
    """`log p - log q`, which may be infinite."""

    @property
    def other(self) -> "Odds":
        """The odds of the other label."""
        return Odds(self.q, self.p, self.complement_nll, self.nll, -self.log_odds)


@jax.custom_jvp
def likelier(x: jax.Array) -> Odds:
    """The odds of the label with log-odds |x|."""
    a = jnp.abs(x)
    # Otherwise an infinite logit would be multiplied by its probability 0.
    finite = jnp.minimum(a, jnp.finfo(x.dtype).max)
    return _odds(finite, finite, 1, stable.log1p_exp(-finite))._replace(log_odds=a)


@likelier.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    label = likelier(x)
    p, q, *_ = label
    t = jnp.where(x < 0, -t, t)  # at 0 as `both_labels` chooses there
    return label, Odds(p * q * t, -p * q * t, -q * t, p * t, t)


def _odds(a: jax.Array, log_odds: jax.Array, one: Scalar, tail: jax.Array) -> Odds:
    """The odds for a = |x|, of which `log_odds` is a or what shall stand for it."""
    e = jnp.exp(-a)
    p = one / (one + e)
    return Odds(p, e * p, tail, log_odds + tail, log_odds)


class Term(NamedTuple):
    """A function of the log-odds of a label and of hyperparameters."""

    formula: Elementwise
    """Of the `Odds` and the hyperparameters; finite, whatever the logit."""
    slopes: tuple["Term", ...]
    """By the log-odds and each hyperparameter; none: by automatic differentiation."""


def term(*slopes: Term) -> Callable[[Elementwise], Term]:
    """Makes a term of a formula of the `Odds` and the hyperparameters."""
    return lambda formula: Term(formula, slopes)


@functools.cache
def both_labels(t: Term) -> Elementwise:
    """`up t(x) + down t(-x)` of x, up, down and the hyperparameters."""

    def value(x, up, down, *hyper):
        label, negative = likelier(x), x < 0
        first, second = jnp.where(negative, down, up), jnp.where(negative, up, down)
        value = first * t.formula(label, *hyper)
        return value + second * t.formula(label.other, *hyper)

    if not t.slopes:
        return value
    value_dx, *value_dhyper = map(both_labels, t.slopes)
    return stable.slopes(
        lambda x, up, down, *hyper: value_dx(x, up, -down, *hyper),
        lambda x, up, down, *hyper: both_labels(t)(x, 1.0, 0.0, *hyper),
        lambda x, up, down, *hyper: both_labels(t)(x, 0.0, 1.0, *hyper),
        *value_dhyper,
    )(value)


# --- both labels of a decision -----------------------------------------------------


class Weights(NamedTuple):
    """The weights of both labels."""

    up: jax.Array
    """`a y`."""
    down: jax.Array
    """`b (1 - y)`."""
    total: Scalar
    """Their sum."""
    half: jax.Array
    """`(down - up) / 2`; if a = b, exact near y = 1/2, where that cancels."""


def _weights(y: jax.Array, a: Scalar, b: Scalar) -> Weights:
    """The weights of both labels."""
    up, down = a * y, b * (1 - y)
    return Weights(up, down, down + up, b * (0.5 - y) - 0.5 * (a - b) * y)


class _Parts(NamedTuple):
    """The parts of a mixture, given or derived from f: see `mixture`."""

    value: Elementwise
    slope: Elementwise
    gap: Elementwise
    smaller: Elementwise
    """`f(|x|)`."""
    f: Elementwise
    """`up f(x) + down f(-x)`, finite even where x is not."""
    dhyper: tuple[Elementwise, ...]
    """The same of the slope of f by each hyperparameter."""


def _loss(
    parts: _Parts, x: jax.Array, wrong: jax.Array, total: Scalar, *hyper: jax.Array
) -> jax.Array:
    """The loss, given the weights of the less likely label and of both.

    Without a comparison and a constant, which XLA:CPU would share: see `stable.xla`.
    """
    (one,) = xla.opaque_constants(x, 1)
    a = jnp.abs(x)
    log_odds, tail = xla.unless_right(wrong, a), stable.log1p_exp_opaque(-a)
    return parts.value(_odds(a, log_odds, one, tail), wrong, total, *hyper)


def _even(parts: _Parts, x: jax.Array, y: jax.Array, *hyper: jax.Array) -> jax.Array:
    """`y f(x) + (1 - y) f(-x)`."""
    (one,) = xla.opaque_constants(x, 1)
    positive, _ = xla.signs(x)
    wrong = (positive - y) * jnp.sign(x)  # of x = 0 both labels cost the same
    return _loss(parts, x, wrong, one, *hyper)


def _even_slopes(parts: _Parts) -> list[Elementwise]:
    """The slopes of `_even` by x, y and the hyperparameters."""
    return [
        lambda x, y, *hyper: parts.slope(x, y, 1 - y, 1.0, 0.5 - y, *hyper),
        lambda x, y, *hyper: jnp.where(x < 0, -1, 1) * parts.gap(x, *hyper),
        *(lambda x, y, *hyper, d=d: d(x, y, 1 - y, *hyper) for d in parts.dhyper),
    ]


def _uneven(
    parts: _Parts, x: jax.Array, y: jax.Array, a: Scalar, b: Scalar, *hyper: jax.Array
) -> jax.Array:
    """`a y f(x) + b (1 - y) f(-x)`."""
    (one,) = xla.opaque_constants(x, 1)
    positive, negative = xla.signs(x)
    up, down = a * y, b * (one - y)
    wrong = positive * down + negative * up
    return _loss(parts, x, wrong, up + down, *hyper)


def _uneven_slopes(parts: _Parts) -> list[Elementwise]:
    """The slopes of `_uneven` by x, y, a, b and the hyperparameters."""
    f = lambda x, *rest: jnp.where(jnp.isinf(x), 0, parts.f(x, *rest))

    def by_hyper(d, x, y, a, b, *hyper):
        return d(x, a * y, b * (1 - y), *hyper)

    return [
        lambda x, y, a, b, *hyper: parts.slope(x, *_weights(y, a, b), *hyper),
        lambda x, y, a, b, *hyper: _difference(parts, x, a, b, *hyper),
        lambda x, y, a, b, *hyper: y * f(x, 1.0, 0.0, *hyper),
        lambda x, y, a, b, *hyper: (1 - y) * f(x, 0.0, 1.0, *hyper),
        *(functools.partial(by_hyper, d) for d in parts.dhyper),
    ]


def _difference(
    parts: _Parts, x: jax.Array, a: Scalar, b: Scalar, *hyper: jax.Array
) -> jax.Array:
    """`a f(x) - b f(-x)`, of which only the gap cancels."""
    common = (a - b) * parts.smaller(x, *hyper)
    return common + jnp.where(x < 0, -a, b) * parts.gap(x, *hyper)


# --- what follows from f -----------------------------------------------------------


def _value(
    f: Term, label: Odds, wrong: jax.Array, total: Scalar, *hyper: jax.Array
) -> jax.Array:
    """`wrong f(-a) + (total - wrong) f(a)`."""
    unlikely = wrong * f.formula(label.other, *hyper)
    return unlikely + (total - wrong) * f.formula(label, *hyper)


def _slope(f: Term) -> Elementwise:
    """`up f'(x) - down f'(-x)` of x, the `Weights` and the hyperparameters."""
    f_dx = both_labels(f.slopes[0])
    return lambda x, up, down, total, half, *hyper: f_dx(x, up, -down, *hyper)


def _gap(f: Term, label: Odds, *hyper: jax.Array) -> jax.Array:
    """`f(a) - f(-a)`, and 0 where it is infinite."""
    value = f.formula(label, *hyper) - f.formula(label.other, *hyper)
    return jnp.where(jnp.isinf(label.log_odds), 0, value)


def _of_likelier(f: Term, formula: Elementwise, up: int, down: int) -> Elementwise:
    """`up f(|x|) + down f(-|x|)` of x and the hyperparameters, by its formula."""
    f_dx, *dhyper = map(both_labels, f.slopes)

    def weights(x):
        ones = jnp.ones_like(x)
        return jnp.where(x < 0, down * ones, up), jnp.where(x < 0, up * ones, down)

    def value_dx(x, *hyper):
        first, second = weights(x)
        return f_dx(x, first, -second, *hyper)

    return stable.slopes(
        value_dx, *(lambda x, *hyper, d=d: d(x, *weights(x), *hyper) for d in dhyper)
    )(lambda x, *hyper: formula(likelier(x), *hyper))


def mixture(
    f: Term,
    *,
    weigh: Callable[[jax.Array], tuple[Scalar, Scalar]] | None = None,
    value: Elementwise | None = None,
    slope: Elementwise | None = None,
    gap: Elementwise | None = None,
) -> Elementwise:
    """`a y f(x) + b (1 - y) f(-x)` of x, y and the hyperparameters of f.

    Args:
      f: The loss of a positive label with log-odds x, and its slopes.
      weigh: (a, b) as a function of a weight, an argument between y and the
        hyperparameters; `None`: there is none, and both are 1.
      value: `wrong f(-a) + (total - wrong) f(a)` for a = |x|, of the `Odds` of a, the
        two weights and the hyperparameters, if that is shorter than by f.
      slope: `up f'(x) - down f'(-x)` of x, the four `Weights` and the hyperparameters,
        with its own slopes, if that is more accurate than by f.
      gap: `f(a) - f(-a)` for a = |x|, of the `Odds` of a and the hyperparameters, if
        that is more accurate near 0 than by f.
    """
    parts = _Parts(
        value or functools.partial(_value, f),
        slope or _slope(f),
        _of_likelier(f, gap or functools.partial(_gap, f), 1, -1),
        _of_likelier(f, f.formula, 1, 0),
        both_labels(f),
        tuple(map(both_labels, f.slopes[1:])),
    )
    if weigh is None:
        even = functools.partial(_even, parts)
        return xla.rematerialised(stable.slopes(*_even_slopes(parts))(even))
    uneven = stable.slopes(*_uneven_slopes(parts))(functools.partial(_uneven, parts))
    weighted = lambda x, y, w, *hyper: uneven(x, y, *weigh(w), *hyper)
    return xla.rematerialised(weighted)
