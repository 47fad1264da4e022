"""Functions of one number; products, quotients and powers with their limits.

"Over all floats" means every float32 number, on a CPU, where the true value is not
subnormal: `python -m bench exhaustive` measures it.  Other bounds are those of a
sample.  `python -m bench.minimax` derives the coefficients.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxloss.stable import xla
from jaxloss.stable.slopes import slopes

Scalar = float | jax.Array

# --- functions of one number -----------------------------------------------------


@slopes(lambda x: 1 / (1 + x))
def log1p(x: jax.Array) -> jax.Array:
    """`log(1 + x)`; -inf at -1, NaN below.

    At most 2 ulp over all floats, the derivative 2; the second one 2.
    """
    w = xla.no_reassociation(1 + x)
    # What rounding 1 + x lost is x - (w - 1); to first order it adds that over w.
    log = jnp.log(w)
    return jnp.where(jnp.isfinite(x) & (x > -1), log + (x - (w - 1)) / w, log)


@slopes(jnp.exp)
def expm1(x: jax.Array) -> jax.Array:
    """`exp(x) - 1`.

    At most 6 ulp over all floats, the derivative 6; both 2 up to x = 88, before the top
    binade of exp.
    """
    small = jnp.abs(x) < 0.5
    y = jnp.where(small, x, 0)
    # (e^y - 1 - y) / y^2 by its Taylor series, as far as it matters for |y| < 1/2.
    terms = 9 if x.dtype == jnp.float32 else 15
    series = polynomial(y, [1 / math.factorial(n) for n in range(2, 2 + terms)])
    return jnp.where(small, y + y * y * series, jnp.exp(x) - 1)


def _sigmoid_dxx(x: jax.Array) -> jax.Array:
    return -sigmoid_slope(x) * tanh(x / 2)


@slopes(_sigmoid_dxx)
def sigmoid_slope(x: jax.Array) -> jax.Array:
    """`sigmoid(x) * sigmoid(-x)`, the variance of a coin with log-odds x.

    At most 5 ulp over all floats, the derivative 7.
    """
    e = jnp.exp(-jnp.abs(x))
    return e / jnp.square(1 + e)


@slopes(sigmoid_slope)
def sigmoid(x: jax.Array) -> jax.Array:
    """`1 / (1 + exp(-x))`, with full digits in both tails.

    At most 3 ulp over all floats, the derivative 5; the second one 7.
    """
    e = jnp.exp(-jnp.abs(x))
    return jnp.where(x < 0, e, 1) / (1 + e)


# Minimax coefficients of (sigmoid(x) - 1/2) / x in x^2 on [0, 4]: 0.1 ulp of float32.
_SIGMOID = [
    0.2499999989444029,
    -0.020833299170605373,
    0.0020831499479040724,
    -0.0002104332514761251,
    2.0961737478186657e-05,
    -1.9329694741478678e-06,
    1.3929616492698843e-07,
    -5.391619469019374e-09,
]


@slopes(sigmoid_slope)
def sigmoid_less_half(x: jax.Array) -> jax.Array:
    """`sigmoid(x) - 1/2` for |x| <= 2, at which it ends.

    At most 2 ulp over all floats, the derivative 4 where |x| <= 2; the second one 7.
    """
    x = jnp.clip(x, -2, 2)
    if x.dtype == jnp.float32:
        return x * polynomial(jnp.square(x), _SIGMOID)
    return 0.5 * tanh(0.5 * x)


# Minimax coefficients of 2 (atanh(s) / s - 1) / s^2 in s^2 on [0, 1/9], where 4 move
# log1p by 0.1 ulp of float32; 5 where they must be other numbers: see `xla`.
_ATANH_4 = [
    0.6666641628491398,
    0.4002152727049817,
    0.280018048668356,
    0.280119884833086,
]
_ATANH_5 = [
    0.6666667550038456,
    0.3999888835378422,
    0.28616596761303414,
    0.21430740589951916,
    0.24289558488785898,
]
_ATANH_16 = [2 / (2 * n + 3) for n in range(16)]


def atanh_series(square: jax.Array) -> jax.Array:
    """`2 (atanh(s) / s - 1) / s^2` of s^2 <= 1/9."""
    return polynomial(square, _ATANH_5 if square.dtype == jnp.float32 else _ATANH_16)


def _log1p_exp(d: jax.Array, one: Scalar, two: Scalar, *series: Scalar) -> jax.Array:
    # With e = exp(d) and s = e / (2 + e) <= 1/3 it is `2 atanh(s)`, whose first terms
    # are e - s e.  XLA:CPU does not vectorise a logarithm of an exponential, and writes
    # out at full size a quotient that is used twice, but not a reciprocal.
    e = jnp.exp(d)
    s = e * (one / (two + e))
    square = s * s
    return e - s * (e - square * polynomial(square, series))


@slopes(sigmoid)
def log1p_exp(d: jax.Array) -> jax.Array:
    """`softplus(d)` for d <= 0.

    At most 2 ulp over all floats, the derivative 3; the second one 5.
    """
    series = _ATANH_5 if d.dtype == jnp.float32 else _ATANH_16
    return _log1p_exp(d, 1, 2, *series)


@slopes(sigmoid)
def log1p_exp_opaque(d: jax.Array) -> jax.Array:
    """`log1p_exp` with opaque constants, for the value of a loss: see `xla`.

    At most 2 ulp over all floats, the derivative 3; the second one 5.
    """
    series = _ATANH_4 if d.dtype == jnp.float32 else _ATANH_16
    return _log1p_exp(d, *xla.opaque_constants(d, 1, 2, *series))


@slopes(sigmoid)
def softplus(x: jax.Array) -> jax.Array:
    """`log(1 + exp(x))`.

    At most 2 ulp over all floats, the derivative 3; the second one 5.
    """
    (zero,) = xla.opaque_constants(x, 0)
    return jnp.maximum(x, zero) + log1p_exp_opaque(-jnp.abs(x))


def log_sigmoid(x: jax.Array) -> jax.Array:
    """`log(sigmoid(x)) = -softplus(-x)`.

    At most 2 ulp over all floats, the derivative 3; the second one 5.
    """
    return -softplus(-x)


def _sech2_dx(x: jax.Array) -> jax.Array:
    return -2 * sech2(x) * tanh(x)


@slopes(_sech2_dx)
def sech2(x: jax.Array) -> jax.Array:
    """`1 - tanh(x)**2 = sech(x)**2`, accurate in the tails, not 0.

    At most 6 ulp over all floats, the derivative 8.
    """
    e = jnp.exp(-jnp.abs(x))  # exp(-2|x|) would flush to zero two binades too early
    return jnp.square(2 * e / (1 + e * e))


# Minimax coefficients of (tanh(x) / x - 1) / x^2 in x^2 on [0, 25/64]: error 4e-9.
_TANH = [
    -0.33333281942012777,
    0.13331442198175875,
    -0.05373971508582982,
    0.02063908724474326,
    -0.0057049869934693975,
]
_TANH_END = 0.625


@slopes(sech2)
def tanh(x: jax.Array) -> jax.Array:
    """Hyperbolic tangent.

    At most 2 ulp over all floats, the derivative 6; the second one 8.
    """
    a = jnp.abs(x)
    if x.dtype == jnp.float32:
        b = jnp.minimum(a, _TANH_END)
        inner = b + b * (b * b * polynomial(b * b, _TANH))
        e = jnp.exp(-2 * a)
        y = jnp.where(a < _TANH_END, inner, (1 - e) / (1 + e))
    else:
        e = expm1(-2 * a)
        y = -e / (2 + e)
    return jnp.copysign(y, x)


# Minimax coefficients of log(cosh(x)) / x^2 in x^2 on [0, 9/16]: relative error 4e-9.
_LOG_COSH = [
    0.49999999782537097,
    -0.0833330499985455,
    0.022216199389098867,
    -0.006698629448514245,
    0.0020140625260424653,
    -0.0004296717953244765,
]
_BEND = 0.75


@slopes(tanh)
def log_cosh(x: jax.Array) -> jax.Array:
    """`log(cosh(x))`; x^2 / 2 near 0, |x| - log 2 far out.

    At most 3 ulp over all floats, the derivative 2; the second one 6.

    The value at b = min(|x|, 3/4), which is a polynomial, plus what is beyond it, h =
    |x| - b: `h + log1p(c expm1(-2 h))` with c = sigmoid(-3/2), exactly 0 within.  So it
    needs no choice between the two, which XLA:CPU would not take up into a sum.
    """
    share = 1 / (1 + math.exp(2 * _BEND))
    constants = xla.opaque_constants(x, _BEND, share, -2, *_LOG_COSH)
    bend, share, minus_two, *series = constants
    a = jnp.abs(x)
    b = jnp.minimum(a, bend)
    h = a - b
    if x.dtype == jnp.float32:  # its stock functions are good enough beyond
        square = b * b
        beyond = h + jnp.log1p(share * jnp.expm1(minus_two * h))
        return square * polynomial(square, series) + beyond
    e = expm1(b)  # cosh(b) - 1 = e^2 / (2 (1 + e))
    return log1p(e * e / (2 * (1 + e))) + (h + log1p(share * expm1(minus_two * h)))


def _inverse_expm1_dx(x: jax.Array) -> jax.Array:
    d = _inverse_expm1(x)
    return -d * (1 + d)


@slopes(_inverse_expm1_dx)
def _inverse_expm1(x: jax.Array) -> jax.Array:
    return 1 / expm1(x)


@slopes(_inverse_expm1)
def log1mexp(x: jax.Array) -> jax.Array:
    """`log(1 - exp(-x))` for x >= 0; -inf at 0.

    At most 3 ulp over all floats, the derivative 3; the second one 4.

    The two forms meet at log 2, where both of their arguments are 1/2.

    Reference:
      Maechler, "Accurately Computing log(1 - exp(-|a|))", 2012.
    """
    ln2 = math.log(2)
    near = jnp.log(-expm1(-jnp.minimum(x, ln2)))
    far = log1p(-jnp.exp(-jnp.maximum(x, ln2)))
    return jnp.where(x < ln2, near, far)


def _sqrt_dx(x: jax.Array) -> jax.Array:
    return safe_divide(jnp.full_like(x, 0.5), sqrt(x))


@slopes(_sqrt_dx)
def sqrt(x: jax.Array) -> jax.Array:
    """Square root with derivative 0 (not infinity) at 0.

    At most 1 ulp over all floats, the derivative 2; the second one 2.
    """
    return jnp.sqrt(x)


@slopes(jnp.sign)
def magnitude(x: jax.Array) -> jax.Array:
    """`|x|`, exact over all floats, with derivative 0 at 0 (that of `jnp.abs` is 1)."""
    return jnp.abs(x)


# --- products, quotients, powers -------------------------------------------------


@slopes(
    lambda x, y: jnp.where((x == 0) & (y == 0), 0, jnp.log(y)),
    lambda x, y: safe_divide(x, y),
)
def xlogy(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x * log(y)`, and 0 where x is 0: 2 ulp (derivatives 2, 1).

    The derivative in x is log y (0 at x = y = 0), and the derivative in y is x / y.
    """
    return jnp.where(x == 0, 0, x * jnp.log(jnp.where(x == 0, 1, y)))


@slopes(
    lambda x, y: jnp.where((x == 0) & (y == -1), 0, log1p(y)),
    lambda x, y: safe_divide(x, 1 + y),
)
def xlog1py(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x * log(1 + y)`, and 0 where x is 0: 3 ulp (derivatives 2, 2)."""
    return jnp.where(x == 0, 0, x * log1p(jnp.where(x == 0, 0, y)))


def _divide_da(a: jax.Array, b: jax.Array) -> jax.Array:
    return safe_divide(jnp.ones_like(a), b)


def _divide_db(a: jax.Array, b: jax.Array) -> jax.Array:
    return -safe_divide(safe_divide(a, b), b)


@slopes(_divide_da, _divide_db)
def safe_divide(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a / b`, and 0 with derivatives 0 where b is 0: 1 ulp (derivatives 1, 2).

    The derivatives do not compute b^2, which overflows from 1.8e19 on.
    """
    zero = b == 0
    return jnp.where(zero, 0, a / jnp.where(zero, 1, b))


def _power_dx(x: jax.Array, gamma: jax.Array) -> jax.Array:
    return gamma * sigmoid_power(x, gamma) * sigmoid(-x)


def _power_dgamma(x: jax.Array, gamma: jax.Array) -> jax.Array:
    return xlogy_of_sigmoid(sigmoid_power(x, gamma), x)


@slopes(_power_dx, _power_dgamma)
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
    half = functools.partial(xla.reduced, digits=(bits.nmant - 1) // 2)
    b = jnp.maximum(b, bits.min)
    high_a, high_b = half(a), half(b)
    # The product of two halves is exact; the rest matters only if the result does.
    rest = high_a * (b - high_b) + (a - high_a) * b
    leading = jnp.exp(high_a * high_b)
    return leading + leading * expm1(jnp.clip(rest, -1, 1))


def boxcox(z: jax.Array, q: Scalar) -> jax.Array:
    """`expm1(q z) / q`, and z at q = 0: 4 ulp (derivatives 8, 12).

    It is the Box-Cox transform `(y^q - 1) / q` of `y = exp(z)`, where q may be 0, swept
    or learnt; its derivative in q is `z^2 / 2` there.
    """
    q = jnp.broadcast_to(jnp.asarray(q).astype(z.dtype), z.shape)
    return _moment(0)(z, q)


@functools.cache
def _grown(n: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """`z^n exp(q z)`, the slope of the next function by z."""

    def grown(z: jax.Array, q: jax.Array) -> jax.Array:
        grown = jnp.exp(_product(q, z))
        # Of what is 0 no power is infinite; and an infinite z has no slope in q.
        power = jnp.where((grown == 0) | (z == -jnp.inf), 0, z)
        return jnp.power(power, n) * grown

    def by_z(z: jax.Array, q: jax.Array) -> jax.Array:
        return q * _grown(n)(z, q) + (n * _grown(n - 1)(z, q) if n else 0)

    return slopes(by_z, lambda z, q: _grown(n + 1)(z, q))(grown)


@functools.cache
def _moment(n: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The integral of `s^n exp(q s)` for s from 0 to z."""

    def moment(z: jax.Array, q: jax.Array) -> jax.Array:
        qz = _product(q, z)
        near = jnp.abs(qz) < 1
        count = 11 if z.dtype == jnp.float32 else 19
        series = [1 / (math.factorial(k) * (k + n + 1)) for k in range(count)]
        close = jnp.power(z, n + 1) * polynomial(jnp.where(near, qz, 0), series)
        q = jnp.where(near, 1, q)
        if n == 0:
            return jnp.where(near, close, expm1(jnp.where(near, 0, qz)) / q)
        rest = _grown(n)(z, q) - n * _moment(n - 1)(z, q)  # by parts
        return jnp.where(near, close, rest / q)

    return slopes(_grown(n), lambda z, q: _moment(n + 1)(z, q))(moment)


def _product(q: jax.Array, z: jax.Array) -> jax.Array:
    """`q z`, and 0 where q is 0, even of an infinite z."""
    return q * jnp.where(q == 0, 0, z)


def polynomial(x: jax.Array, coefficients: Sequence[Scalar]) -> jax.Array:
    """The polynomial with these coefficients, constant first, by Horner's rule."""
    value = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + c
    return value


def difference(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The rounded `a - b` and its rounding error, exactly (Knuth's two-sum).

    Without the error, `exp(a - b)` is off by |a - b| / 2 ulp.
    """
    a, b = xla.no_fma(a), xla.no_fma(b)
    d = a - b
    finite = jnp.isfinite(d)
    a, b, s = (jnp.where(finite, v, 0) for v in (a, b, d))
    shadow = s - a
    return d, (a - (s - shadow)) - (b + shadow)


def compensated_sum(
    a: jax.Array, a_rest: jax.Array, b: jax.Array, b_rest: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The sum of two numbers that have a rest, and its rest: twice the digits.

    A rest is the rounding error so far.  Autodiff treats it as a constant: the
    derivative of the sum is that of `a + b`.
    """
    fixed = jax.lax.stop_gradient
    total, error = difference(a, -b)
    total, rest = difference(total, -fixed(error + (a_rest + b_rest)))
    return total, fixed(rest)


def exp_difference(a: jax.Array, b: jax.Array, variant: int = 1) -> jax.Array:
    """`exp(a - b)` for a <= b + 88: 2 ulp; NaN where both are infinite.

    It needs fewer operations than `difference`: here the rounding error may be any
    finite number where the exponential is 0, and the maximum hides a product as
    `no_fma` does.  All variants are equal, but XLA does not see that.
    """
    bits = jnp.finfo(a.dtype)
    low = float(bits.min)
    a, b = jnp.maximum(a, low), jnp.minimum(b, float(bits.max))
    d = jnp.maximum(a - b, low / variant)
    shadow = d - a
    e = jnp.exp(d)
    return e + e * ((a - (d - shadow)) - (b + shadow))
