"""The normal distribution between two numbers, however far out they are.

With phi its density and Q its upper tail, a class from a to b = a + width, seen from
the score, has the probability p = Q(a) - Q(b).  It is looked at from the end that is
nearer to 0: b >= |a|.  All that a loss needs is made of the ratio r = phi(a) / p and of
the share E = phi(b) / phi(a) <= 1, and neither has a difference of nearly equal numbers
in it: where a class is narrow, p is an integral; elsewhere it is made of tails, each as
the product of phi with a function that changes slowly (Mills' ratio).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import stable

# Chebyshev coefficients in (x - 4) / (x + 4) of `(1 + x) M(x)` and of
# `(1 + x)^2 (1 - x M(x))`, with M(x) = Q(x) / phi(x), by `python -m bench.minimax`; a
# precision needs only the first of them.
_RATIO = [
    1.1670525350882472,
    -0.1610195767134654,
    -0.028002821825452974,
    0.03167452189239266,
    -0.012103231162345369,
    0.0027056129762167095,
    -0.00029931636202703166,
    -1.716686526879361e-05,
    1.0178489264109868e-05,
    -4.894829570004192e-07,
    -2.844006500151048e-07,
    3.0766283713811506e-08,
    9.180378674469537e-09,
    -1.2756102213808737e-09,
    -3.660279376104134e-10,
    4.5926359348595205e-11,
    1.7189314687646526e-11,
    -1.2726833698700693e-12,
    -8.668081913316188e-13,
    1.1061557204136741e-15,
    4.2750210770103334e-14,
    3.790937692263904e-15,
    -1.8474103010592332e-15,
    -4.0419094130708177e-16,
    5.340854385017358e-17,
]
_REST = [
    1.183857810667201,
    -0.08349183424091261,
    -0.16929107857734638,
    0.0857737523012336,
    -0.016486567403064586,
    -0.0018565842308912394,
    0.0019122228197821925,
    -0.00044059354120629503,
    9.50202310107391e-06,
    1.5740775327095933e-05,
    -1.9934667974794594e-06,
    -4.991414949663991e-07,
    1.0881199082272735e-07,
    1.896108230139367e-08,
    -5.089148344736358e-09,
    -9.351339432932172e-10,
    2.22549489755215e-10,
    5.5251290253164014e-11,
    -8.466246487852238e-12,
    -3.4517565057701383e-12,
    1.9033898454068721e-13,
    2.069985153582526e-13,
    9.611940050596087e-15,
    -1.0891215377791668e-14,
    -1.8459774409384437e-15,
    4.2036780476662306e-16,
    1.6975040863439396e-16,
    -1.8854000813170548e-18,
    -1.1055233817394778e-17,
]


class _Parts(NamedTuple):
    ratio: jax.Array
    """r = phi(a) / p."""
    share: jax.Array
    """E = phi(b) / phi(a)."""
    missing: jax.Array
    """1 - E."""
    slope: jax.Array
    """`r (1 - E)`."""
    mean: jax.Array
    """How far beyond a the mean of the class is: the slope less a."""
    product: jax.Array
    """`r mean`, also where neither of them could be represented."""
    tails: jax.Array
    """1 - p where a < 0."""
    narrow: jax.Array


class _Tail(NamedTuple):
    """What belongs to Q(x), for x >= 0; M is Mills' ratio Q(x) / phi(x)."""

    x: jax.Array
    ratio: jax.Array
    """`(1 + x) M(x)`, between 1 and 1.3."""
    rest: jax.Array
    """`(1 + x)^2 (1 - x M(x))`, between 0.9 and 1.5."""

    def whole(self) -> jax.Array:
        """Q(x)."""
        return _density(self.x) * self.ratio / (1 + self.x)


def _parts(a: jax.Array, width: jax.Array) -> _Parts:
    b, middle = a + width, a + 0.5 * width
    fall = width * middle  # (b^2 - a^2) / 2
    share, missing = jnp.exp(-fall), -stable.expm1(-fall)
    narrow = (width < 1) & (fall < 1)
    # What is not chosen is computed of another class, where nothing is 0 / 0.
    near = _tail(jnp.where(narrow, 0, jnp.abs(a)))
    far = _tail(jnp.where(narrow, 1, jnp.maximum(b, 0)))
    beyond = _on_one_side(near, far, width, jnp.where(narrow, 0, share))
    # 0 is between the ends.
    tails = near.whole() + far.whole()
    ratio = _density(near.x) / (1 - tails)
    mean = ratio * missing - a
    around = ratio, mean, ratio * mean
    ratio, mean = _narrow(jnp.where(narrow, a, 0), jnp.where(narrow, width, 1))
    within = ratio, mean, ratio * mean
    ratio, mean, product = (
        jnp.where(narrow, w, jnp.where(a < 0, i, o))
        for w, i, o in zip(within, around, beyond, strict=True)
    )
    # Of a width that is the root of the smallest number, its product is 0.
    rate = jnp.where(fall == 0, 1, missing / jnp.where(fall == 0, 1, fall))
    scaled = ratio * jnp.where(narrow, width, 1)
    slope = jnp.where(narrow, middle * rate * scaled, ratio * missing)
    return _Parts(ratio, share, missing, slope, mean, product, tails, narrow)


def _on_one_side(
    near: _Tail, far: _Tail, width: jax.Array, share: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Ratio, mean and their product, of a class between two numbers >= 0.

    p / phi(a) is `M(a) - E M(b)`, and the mean is its slope in a, over it; both times
    1 + a, which goes to infinity as they go to 0.
    """
    scale = 1 + near.x
    smaller = scale / (1 + far.x)
    part = share * smaller
    bracket = near.ratio - part * far.ratio
    slope = near.rest - part * smaller * far.rest
    slope = slope - smaller * scale * ((width * share) * far.ratio)
    return scale / bracket, slope / (scale * bracket), slope / jnp.square(bracket)


def _tail(x: jax.Array) -> _Tail:
    single = x.dtype == jnp.float32
    t = 1 - 8 / (x + 4)
    ratio = _chebyshev(t, _RATIO[: 13 if single else None])
    return _Tail(x, ratio, _chebyshev(t, _REST[: 15 if single else None]))


def _chebyshev(t: jax.Array, coefficients: list[float]) -> jax.Array:
    """The sum of these Chebyshev polynomials, by Clenshaw's rule."""
    one, two = jnp.zeros_like(t), jnp.zeros_like(t)
    for c in coefficients[:0:-1]:
        one, two = c + 2 * t * one - two, one
    return coefficients[0] + t * one - two


def _density(x: jax.Array) -> jax.Array:
    return jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))


def _narrow(a: jax.Array, width: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The ratio and the mean of a class of width < 1: by Gauss's quadrature of
    `phi(a + s) / phi(a)` over s from 0 to the width."""
    count = 5 if a.dtype == jnp.float32 else 10
    slope, bend = a * width, 0.5 * jnp.square(width)
    whole, first = jnp.zeros_like(a), jnp.zeros_like(a)
    for at, weight in zip(*np.polynomial.legendre.leggauss(count), strict=True):
        z = float(1 + at) / 2
        density = float(weight) / 2 * jnp.exp(-z * (slope + z * bend))
        whole, first = whole + density, first + z * density
    return 1 / (width * whole), width * (first / whole)


# --- derivatives ---------------------------------------------------------------------


def _surprise_daa(a: jax.Array, width: jax.Array) -> jax.Array:
    p = _parts(a, width)
    return p.missing * p.product + p.ratio * (width * p.share)


def _surprise_dadw(a: jax.Array, width: jax.Array) -> jax.Array:
    p = _parts(a, width)
    return p.ratio * p.share * (width - p.mean)


def _surprise_dww(a: jax.Array, width: jax.Array) -> jax.Array:
    p = _parts(a, width)
    end = p.ratio * p.share
    return end * ((a + width) + end)


@stable.slopes(_surprise_daa, _surprise_dadw)
def _surprise_da(a: jax.Array, width: jax.Array) -> jax.Array:
    return _parts(a, width).slope


@stable.slopes(_surprise_dadw, _surprise_dww)
def _surprise_dw(a: jax.Array, width: jax.Array) -> jax.Array:
    p = _parts(a, width)
    return -p.ratio * p.share


@stable.slopes(_surprise_da, _surprise_dw)
def surprise(a: jax.Array, width: jax.Array) -> jax.Array:
    """`-log(Q(a) - Q(a + width))` for a >= -width / 2, accurate in both derivatives."""
    p = _parts(a, width)
    likely = (a < 0) & ~p.narrow
    half_log = 0.5 * math.log(2 * math.pi)
    rare = (0.5 * a * a + half_log) + jnp.log(jnp.where(likely, 1, p.ratio))
    return jnp.where(likely, -stable.log1p(-p.tails), rare)
