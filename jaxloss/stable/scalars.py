"""Functions of one number; products, quotients and powers with their limits."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxloss.stable.derivatives import pin, with_derivatives

# --- functions of one number -----------------------------------------------------


@with_derivatives(lambda x: 1 / (1 + x))
def log1p(x: jax.Array) -> jax.Array:
    """`log(1 + x)`: 2 ulp (derivatives 1, 2); -inf at -1, NaN below."""
    w = pin(1 + x)
    # What rounding 1 + x lost is x - (w - 1); to first order it adds that over w.
    corrected = jnp.log(w) + (x - (w - 1)) / w
    return jnp.where(jnp.isfinite(x) & (x > -1), corrected, jnp.log1p(x))


@with_derivatives(jnp.exp)
def expm1(x: jax.Array) -> jax.Array:
    """`exp(x) - 1`: 2 ulp (derivatives 1; 6 where x > 88, the top binade of exp)."""
    small = jnp.abs(x) < 0.5
    y = jnp.where(small, x, 0)
    # (e^y - 1 - y) / y^2 by its Taylor series, as far as it matters for |y| < 1/2.
    terms = 9 if x.dtype == jnp.float32 else 15
    series = polynomial(y, [1 / math.factorial(n) for n in range(2, 2 + terms)])
    return jnp.where(small, y + y * y * series, jnp.exp(x) - 1)


def _sigmoid_curve(x: jax.Array) -> jax.Array:
    return -sigmoid_slope(x) * tanh(x / 2)


@with_derivatives(_sigmoid_curve)
def sigmoid_slope(x: jax.Array) -> jax.Array:
    """`sigmoid(x) * sigmoid(-x)`, the variance of a coin with log-odds x: 4 ulp."""
    e = jnp.exp(-jnp.abs(x))
    return e / jnp.square(1 + e)


@with_derivatives(sigmoid_slope)
def sigmoid(x: jax.Array) -> jax.Array:
    """`1 / (1 + exp(-x))`: 3 ulp (derivatives 4, 7), with full digits in both tails."""
    e = jnp.exp(-jnp.abs(x))
    return jnp.where(x < 0, e, 1) / (1 + e)


@with_derivatives(sigmoid)
def softplus(x: jax.Array) -> jax.Array:
    """`log(1 + exp(x))`: 3 ulp (derivatives 3, 4)."""
    return jnp.maximum(x, 0) + log1p(jnp.exp(-jnp.abs(x)))


def log_sigmoid(x: jax.Array) -> jax.Array:
    """`log(sigmoid(x)) = -softplus(-x)`: 3 ulp (derivatives 3, 4)."""
    return -softplus(-x)


def _sech2_slope(x: jax.Array) -> jax.Array:
    return -2 * sech2(x) * tanh(x)


@with_derivatives(_sech2_slope)
def sech2(x: jax.Array) -> jax.Array:
    """`1 - tanh(x)**2 = sech(x)**2`: 6 ulp, not 0, in the tails."""
    e = jnp.exp(-jnp.abs(x))  # exp(-2|x|) would flush to zero two binades too early
    return jnp.square(2 * e / (1 + e * e))


@with_derivatives(sech2)
def tanh(x: jax.Array) -> jax.Array:
    """Hyperbolic tangent: 4 ulp (derivatives 6, 8)."""
    e = expm1(-2 * jnp.abs(x))
    return jnp.copysign(-e / (2 + e), x)


# Minimax coefficients of log(cosh(x)) / x^2 in x^2 on [0, 1]: relative error 3e-10.
_LOG_COSH = [
    0.49999999972287,
    -0.08333329776092006,
    0.022221464489357072,
    -0.006739799481724222,
    0.002161291898074673,
    -0.0006794099122033923,
    0.00017619862671795864,
    -2.561730309831305e-05,
]
_LN2_HIGH = 0.693145751953125  # ln 2 to 12 bits: |x| - this is exact for |x| in [1, 2]
_LN2_LOW = 1.42860682030941723212e-06


@with_derivatives(tanh)
def log_cosh(x: jax.Array) -> jax.Array:
    """`log(cosh(x))`: 2 ulp (derivatives 4, 6); x^2 / 2 near 0, |x| - log 2 far out."""
    a = jnp.abs(x)
    near = jnp.minimum(a, 1)
    if x.dtype == jnp.float32:
        small = jnp.square(near) * polynomial(jnp.square(near), _LOG_COSH)
    else:  # cosh(a) - 1 = e^2 / (2 (1 + e)) with e = exp(a) - 1
        e = expm1(near)
        small = log1p(e * e / (2 * (1 + e)))
    large = (a - _LN2_HIGH) + (log1p(jnp.exp(-2 * a)) - _LN2_LOW)
    return jnp.where(a < 1, small, large)


def _inverse_expm1_slope(x: jax.Array) -> jax.Array:
    d = _inverse_expm1(x)
    return -d * (1 + d)


@with_derivatives(_inverse_expm1_slope)
def _inverse_expm1(x: jax.Array) -> jax.Array:
    return 1 / expm1(x)


@with_derivatives(_inverse_expm1)
def log1mexp(x: jax.Array) -> jax.Array:
    """`log(1 - exp(-x))` for x >= 0: 3 ulp (derivatives 3, 4); -inf at 0.

    The two forms meet at log 2, where both of their arguments are 1/2.

    Reference:
      Maechler, "Accurately Computing log(1 - exp(-|a|))", 2012.
    """
    ln2 = math.log(2)
    near = jnp.log(-expm1(-jnp.minimum(x, ln2)))
    far = log1p(-jnp.exp(-jnp.maximum(x, ln2)))
    return jnp.where(x < ln2, near, far)


def _sqrt_slope(x: jax.Array) -> jax.Array:
    return safe_divide(jnp.full_like(x, 0.5), sqrt(x))


@with_derivatives(_sqrt_slope)
def sqrt(x: jax.Array) -> jax.Array:
    """Square root with derivative 0 (not infinity) at 0: 1 ulp (derivatives 1, 2)."""
    return jnp.sqrt(x)


@with_derivatives(jnp.sign)
def magnitude(x: jax.Array) -> jax.Array:
    """`|x|`, exact, with derivative 0 at 0 (that of `jnp.abs` there is 1)."""
    return jnp.abs(x)


# --- products, quotients, powers -------------------------------------------------


@with_derivatives(
    lambda x, y: jnp.where((x == 0) & (y == 0), 0, jnp.log(y)),
    lambda x, y: safe_divide(x, y),
)
def xlogy(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x * log(y)`, and 0 where x is 0: 2 ulp (derivatives 2, 1).

    With respect to x the derivative is log y (0 at x = y = 0); to y it is x / y.
    """
    return jnp.where(x == 0, 0, x * jnp.log(jnp.where(x == 0, 1, y)))


@with_derivatives(
    lambda x, y: jnp.where((x == 0) & (y == -1), 0, log1p(y)),
    lambda x, y: safe_divide(x, 1 + y),
)
def xlog1py(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x * log(1 + y)`, and 0 where x is 0: 3 ulp (derivatives 2, 2)."""
    return jnp.where(x == 0, 0, x * log1p(jnp.where(x == 0, 0, y)))


def _divide_by_numerator(a: jax.Array, b: jax.Array) -> jax.Array:
    return safe_divide(jnp.ones_like(a), b)


def _divide_by_denominator(a: jax.Array, b: jax.Array) -> jax.Array:
    return -safe_divide(safe_divide(a, b), b)


@with_derivatives(_divide_by_numerator, _divide_by_denominator)
def safe_divide(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a / b`, and 0 with derivatives 0 where b is 0: 1 ulp (derivatives 1, 2).

    Differentiated without ever forming b^2, which overflows from 1.8e19 on.
    """
    zero = b == 0
    return jnp.where(zero, 0, a / jnp.where(zero, 1, b))


def _power_by_logit(x: jax.Array, gamma: jax.Array) -> jax.Array:
    return gamma * sigmoid_power(x, gamma) * sigmoid(-x)


def _power_by_exponent(x: jax.Array, gamma: jax.Array) -> jax.Array:
    return xlogy_of_sigmoid(sigmoid_power(x, gamma), x)


@with_derivatives(_power_by_logit, _power_by_exponent)
def sigmoid_power(x: jax.Array, gamma: jax.Array) -> jax.Array:
    """`sigmoid(x) ** gamma`, gamma >= 0: 3 + 2.5 gamma ulp (derivatives + 2, + 4).

    Finite, with finite derivatives, at every gamma including 0 and 0.5, where the
    textbook `(1 - p) ** gamma` has slope infinity as soon as p rounds to 1.
    """
    # A power of a rounded number costs gamma ulps, a product in the exponent costs
    # |gamma x| of them; only where the sigmoid would flush to zero is it the latter.
    power = jnp.power(sigmoid(jnp.maximum(x, -40)), gamma)
    return jnp.where(x < -40, _exp_of_product(gamma, jnp.minimum(x, -40)), power)


def xlogy_of_sigmoid(weight: jax.Array, x: jax.Array) -> jax.Array:
    """`weight * log(sigmoid(x))`, and 0 where the weight is 0, even at x = -inf."""
    safe = jnp.where(weight == 0, 0, x)
    return jnp.where(weight == 0, 0, -weight * softplus(-safe))


def _exp_of_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """`exp(a * b)` for a >= 0 and large b < 0, without the rounding of the product."""
    bits = jnp.finfo(a.dtype)
    half = functools.partial(
        lax.reduce_precision,
        exponent_bits=bits.nexp,
        mantissa_bits=(bits.nmant - 1) // 2,
    )
    b = jnp.maximum(b, bits.min)
    high_a, high_b = half(a), half(b)
    # The product of two halves is exact; the rest matters only if the result does.
    rest = high_a * (b - high_b) + (a - high_a) * b
    leading = jnp.exp(high_a * high_b)
    return leading + leading * expm1(jnp.clip(rest, -1, 1))


def polynomial(x: jax.Array, coefficients: list[float]) -> jax.Array:
    """The polynomial with these coefficients, constant first, by Horner's rule."""
    value = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + c
    return value


def nan_unless(known: jax.Array, like: jax.Array) -> jax.Array:
    """0, or NaN where not `known`, in the dtype of `like`: to be added to a result.

    As a logarithm, for a literal NaN behind a `where` always stops `jax.debug_nans`.
    """
    return jnp.log(jnp.where(known, 1, -1).astype(like.dtype))
