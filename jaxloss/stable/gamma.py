"""Logarithms of gamma functions, without the digits that their differences lose.

`log(Gamma(z)) = (z - 1/2) log z - z + log(2 pi) / 2 + S(z)` with a small S, Binet's
function: where such logarithms are subtracted, the large terms cancel by algebra and
only S is computed.  S is Stirling's series for large z; a smaller z is moved up by the
recurrence `Gamma(z + 1) = z Gamma(z)`.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp

from jaxloss.stable.excess import log1p_excess, log1p_excess_over_square
from jaxloss.stable.scalars import log1p, polynomial, safe_divide
from jaxloss.stable.slopes import slopes

# Bernoulli numbers B_2, B_4, ...; S(z) has the terms B_2k / (2k (2k - 1) z^(2k - 1)).
_BERNOULLI = [1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6]
_BERNOULLI += [-3617 / 510, 43867 / 798, -174611 / 330]


def _length(x: jax.Array) -> tuple[int, int]:
    """Terms of the series, and from where on they do: errors of 2e-10 and 2e-18."""
    return (6, 4) if x.dtype == jnp.float32 else (10, 10)


def _terms(x: jax.Array, order: int) -> list[float]:
    """Coefficients of z S(z) in 1/z^2, of S differentiated by `-log z` so often."""
    pairs = enumerate(_BERNOULLI[: _length(x)[0]], start=1)
    return [b * (2 * k - 1) ** (order - 1) / (2 * k) for k, b in pairs]


def _trigamma_terms(x: jax.Array) -> list[float]:
    """Coefficients of `trigamma(z) - 1/z - 1/(2 z^2)` over 1/z, in 1/z^2."""
    return [0.0, *_BERNOULLI[: _length(x)[0]]]


# --- a ratio -------------------------------------------------------------------------


def _moved_up(x: jax.Array, a: jax.Array) -> tuple[jax.Array, int, jax.Array]:
    """Whether x or x + a is too small for the series, how many steps lead up from
    there, and where the series is taken."""
    _, count = _length(x)
    small = jnp.minimum(x, x + a) < count
    return small, count, jnp.where(small, x + count, x)


def _steps(
    x: jax.Array, a: jax.Array, small: jax.Array, count: int
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """x + k and x + a + k of each step; 1 where none is taken."""
    low, high = jnp.where(small, x, 1), jnp.where(small, x + a, 1)
    yield from ((low + k, high + k) for k in range(count))


def _divided_difference(
    coefficients: Sequence[float], x: jax.Array, y: jax.Array
) -> jax.Array:
    """`(f(x) - f(y)) / (x - y)` of a polynomial f, also where x is y."""
    value, slope = jnp.full_like(x, coefficients[-1]), jnp.zeros_like(x)
    for c in coefficients[-2::-1]:
        slope = slope * y + value
        value = value * x + c
    return slope


def _odd_difference(
    coefficients: Sequence[float], x: jax.Array, a: jax.Array
) -> jax.Array:
    """`f(x + a) - f(x)` of `f(z) = g(1/z^2) / z`, with a as a factor."""
    p, q = 1 / x, 1 / (x + a)
    inner = _divided_difference(coefficients, p * p, q * q)
    return -a * p * q * (polynomial(q * q, coefficients) + p * (p + q) * inner)


def _even_difference(
    coefficients: Sequence[float], x: jax.Array, a: jax.Array
) -> jax.Array:
    """`g(1 / (x + a)^2) - g(1/x^2)`, with a as a factor."""
    p, q = 1 / x, 1 / (x + a)
    return -a * p * q * (p + q) * _divided_difference(coefficients, p * p, q * q)


def _trigamma_at(q: jax.Array) -> jax.Array:
    """The trigamma function at 1 / q, less q: from the series."""
    return q * (0.5 * q + polynomial(q * q, _trigamma_terms(q)))


def ratio_daa(x: jax.Array, a: jax.Array) -> jax.Array:
    """The trigamma function at x + a."""
    small, count, at = _moved_up(x, a)
    q = 1 / (at + a)
    moved = sum(1 / (y * y) for _, y in _steps(x, a, small, count))
    return q + _trigamma_at(q) + jnp.where(small, moved, 0)


def ratio_dxda(x: jax.Array, a: jax.Array) -> jax.Array:
    """The trigamma function at x + a, less 1 / x."""
    small, count, at = _moved_up(x, a)
    q = 1 / (at + a)
    low = jnp.where(small, x, 1)
    moved = sum(1 / (y * y) for _, y in _steps(x, a, small, count))
    moved = moved - count / (low * (low + count))
    return _trigamma_at(q) - (a / at) * q + jnp.where(small, moved, 0)


def ratio_dxx(x: jax.Array, a: jax.Array) -> jax.Array:
    """The difference of the trigamma functions at x + a and x, plus a / x^2."""
    small, count, at = _moved_up(x, a)
    p, q = 1 / at, 1 / (at + a)
    series = _odd_difference(_trigamma_terms(x), at, a)
    series = series + (a * p) * (a * p) * q - 0.5 * (a * p) * q * (p + q)
    low = jnp.where(small, x, 1)
    moved = a * count * (2 * low + count) / jnp.square(low * (low + count))
    for u, y in _steps(x, a, small, count):
        moved = moved - (a / u) * ((u + y) / u) / (y * y)
    return series + jnp.where(small, moved, 0)


@slopes(ratio_dxda, ratio_daa)
def ratio_da(x: jax.Array, a: jax.Array) -> jax.Array:
    """The digamma function at x + a, less log x."""
    small, count, at = _moved_up(x, a)
    q = 1 / (at + a)
    series = log1p(a / at) - q * (0.5 + q * polynomial(q * q, _terms(x, 1)))
    moved = log1p(count / jnp.where(small, x, 1))
    for _, y in _steps(x, a, small, count):
        moved = moved - 1 / y
    return series + jnp.where(small, moved, 0)


@slopes(ratio_dxx, ratio_dxda)
def ratio_dx(x: jax.Array, a: jax.Array) -> jax.Array:
    """The difference of the digamma functions at x + a and x, less a / x."""
    small, count, at = _moved_up(x, a)
    u = a / at
    series = 0.5 * u / (at + a) - log1p_excess(u)
    series = series - _even_difference([0.0, *_terms(x, 1)], at, a)
    low = jnp.where(small, x, 1)
    moved = -count / (low * (low + count))
    for u, y in _steps(x, a, small, count):
        moved = moved + 1 / (u * y)
    return series + a * jnp.where(small, moved, 0)


@slopes(ratio_dx, ratio_da)
def log_gamma_ratio(x: jax.Array, a: jax.Array) -> jax.Array:
    """`log(Gamma(x + a) / Gamma(x)) - a log x` for x > 0, x + a > 0; 0 at x = inf.

    `lgamma(x + a) - lgamma(x)` has no digits left where x is large.
    """
    small, count, at = _moved_up(x, a)
    u = a / at
    # (1 + u) log1p(u) - u over u, so that x = inf is not inf * 0.
    growth = log1p(u) - u * log1p_excess_over_square(u)
    series = a * growth - 0.5 * log1p(u) + _odd_difference(_terms(x, 0), at, a)
    moved = jnp.zeros_like(x)
    for low, _ in _steps(x, a, small, count):
        moved = moved + _log_step(low, jnp.where(small, a, 0))
    return series + jnp.where(small, moved, 0)


def _log_step(z: jax.Array, a: jax.Array) -> jax.Array:
    """`a log1p(1/z) - log1p(a/z)`, of which a/z cancels where z is large."""
    low = z < 1
    far = jnp.where(low, 1, z)
    near = a * log1p(1 / jnp.where(low, z, 1)) - log1p(jnp.where(low, a / z, 0))
    return jnp.where(low, near, log1p_excess(a / far) - a * log1p_excess(1 / far))


# --- Binet's function ----------------------------------------------------------------
#
# One step up, S is less by `J(z) = (z + 1/2) log1p(1/z) - 1`, which is the sum of
# s^2k / (2k + 1) with s = 1 / (2z + 1), where nothing cancels.  Below 1 it is slow.

Step = Callable[[jax.Array], jax.Array]


def _sum_of_steps(
    x: jax.Array, below_one: Step, power: int, coefficient: Callable[[int], float]
) -> jax.Array:
    """The sum of the steps of z = x, x + 1, ... up to where the series is taken.

    A step is the sum of `coefficient(k) s^(2k - 2 + power)` over k >= 1; `below_one` is
    the same as a function of z, for the first step where that is less than 1.
    """
    total = jnp.where(x < 1, below_one(jnp.where(x < 1, x, 0.5)), 0)
    for k in range(_length(x)[1]):
        least = max(k, 1)
        s = 1 / (2 * (jnp.maximum(x, 1) if k == 0 else x + k) + 1)
        terms = _count_of_powers(x, 2 * least + 1)
        down = polynomial(s * s, [coefficient(i) for i in range(1, terms + 1)])
        down = s**power * down
        total = total + (jnp.where(x < 1, 0, down) if k == 0 else down)
    return total


def _count_of_powers(x: jax.Array, least: int) -> int:
    """How many even powers of s are more than rounding, of 1 / s at least this."""
    bits = 24 if x.dtype == jnp.float32 else 53
    return math.ceil(bits / (2 * math.log2(least)))


def _series_at(x: jax.Array, order: int) -> jax.Array:
    """S, or what it is after derivatives by `-log z`, of z >= 4."""
    p = 1 / x
    return p * polynomial(p * p, _terms(x, order))


def _near(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Whether x is too small for the series; x where it is, and moved up."""
    _, count = _length(x)
    near = x < count
    return near, jnp.where(near, x, 1), jnp.where(near, x + count, x)


def stirling_error_curve(x: jax.Array) -> jax.Array:
    """`-z d/dz` of `stirling_error_slope`."""
    near, low, at = _near(x)
    # The powers of s in a step down add up: sum(k s^(2k - 2)) is 1 / (1 - s^2)^2.
    steps = sum(
        0.5 / jnp.square((low + k) * (low + k + 1)) for k in range(_length(x)[1])
    )
    second = steps + polynomial(1 / (at * at), _trigamma_terms(x)) / at
    inner = low * low * second - stirling_error_slope(low)
    return jnp.where(near, inner, _series_at(at, 2))


@slopes(lambda x: -safe_divide(stirling_error_curve(x), x))
def stirling_error_slope(x: jax.Array) -> jax.Array:
    """`-z S'(z)` > 0 of `stirling_error`; 1/2 at 0, 0 at infinity."""
    near, low, at = _near(x)
    steps = _sum_of_steps(
        low,
        lambda z: (z + 0.5) / (z * (z + 1)) - log1p(1 / z),
        3,
        lambda k: 4 * k / (2 * k + 1),
    )
    series = _series_at(at, 1)
    return jnp.where(near, low * (steps + series / at), series)


@slopes(lambda x: -safe_divide(stirling_error_slope(x), x))
def stirling_error(x: jax.Array) -> jax.Array:
    """`log Gamma(z) - (z - 1/2) log z + z - log(2 pi) / 2` > 0 for z > 0."""
    near, low, at = _near(x)
    steps = _sum_of_steps(
        low,
        lambda z: (z + 0.5) * log1p(1 / z) - 1,
        2,
        lambda k: 1 / (2 * k + 1),
    )
    return _series_at(at, 0) + jnp.where(near, steps, 0)
