"""Every bfloat16 and every float16 there is, through every loss of one number.

Those are the functions of a margin, the losses of a residual (with the target 0) and
the binary losses (with each label), in all their settings.  Half precision is widened:
a value is within the bound of its loss in ulps of float32, and a gradient, rounded once
to the half precision of its argument, is correctly rounded up to that bound.  A loss is
one program per dtype; settings are arguments of it.

The truth is a formula in NumPy's float64, and where a result is worst, in mpmath.
"""

import math
import types
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import jaxloss
from jaxloss import margins
from jaxloss.testing import ulp

HALVES = np.dtype(jnp.bfloat16), np.dtype(np.float16)
SMALLEST = 2.0**-126
# A factor that is flushed to zero is missing from a product: see `docs/numerics.md`.
FLUSH = 2.0**-116
INF = math.inf

# Formulas take the module that computes them, so that there is one for both.
MP = types.SimpleNamespace(
    exp=mp.exp,
    expm1=mp.expm1,
    log1p=mp.log1p,
    sinh=mp.sinh,
    tanh=mp.tanh,
    abs=abs,
    sign=mp.sign,
    maximum=max,
    minimum=min,
    where=lambda condition, a, b: a if condition else b,
)


# --- formulas ------------------------------------------------------------------------


def softplus(m, x):
    return m.maximum(x, 0) + m.log1p(m.exp(-m.abs(x)))


def sigmoid(m, x):
    return m.exp(-softplus(m, -x))


def clip(m, x, limit):
    return m.minimum(m.maximum(x, -limit), limit)


def log_cosh(m, r):
    a = m.abs(r)
    near = m.log1p(2 * m.sinh(m.minimum(a, 1) / 2) ** 2)
    far = a - m.log1p(1) + m.log1p(m.exp(-2 * a))
    return m.where(a < 1, near, far)


def side(m, r, level):
    return m.where(r > 0, 1 - level, level)


def huber(m, r, delta):
    inner = m.minimum(m.abs(r), delta)
    return inner * (m.abs(r) - inner / 2)


def barron(m, r, alpha, scale):
    z = (r / scale) ** 2
    if alpha in (0, 2):
        return z / 2 if alpha else m.log1p(z / 2)
    if math.isinf(alpha):
        return -m.expm1(-z / 2)
    b = abs(alpha - 2)
    return b / alpha * m.expm1(alpha / 2 * m.log1p(z / b))


def barron_slope(m, r, alpha, scale):
    z = (r / scale) ** 2
    b = abs(alpha - 2) or 1
    log = -z / 2 if math.isinf(alpha) else (alpha / 2 - 1) * m.log1p(z / b)
    return r / scale**2 * m.exp(log)


def focal(m, x, gamma):
    return m.exp(-gamma * softplus(m, x)) * softplus(m, -x)


def focal_slope(m, x, gamma):
    fade = m.exp(-gamma * softplus(m, x))
    # The loss of what is surely wrong is as large as x, where its p is 0.
    p_nll = sigmoid(m, x) * softplus(m, -m.maximum(x, -2000))
    return -fade * (gamma * p_nll + sigmoid(m, -x))


# --- the losses ----------------------------------------------------------------------


class Loss(NamedTuple):
    """A loss of one number and what is claimed of it."""

    fn: Callable
    """Of the number, a second argument and hyperparameters."""
    value: Callable
    slope: Callable
    bounds: tuple[float, float]
    """Ulps of float32 allowed of value and gradient: those of its accuracy cases."""
    settings: tuple[tuple[float, ...], ...] = ((),)
    seconds: tuple[float, ...] = (0.0,)
    """The second argument: 0 as a target, or labels."""
    floor: float = SMALLEST
    largest: float = INF
    """Beyond, nothing is claimed but that a NaN is one."""
    keeps_nan: bool = True
    """Whether its slope at NaN is NaN; else it is 0."""


QUANTILES = (0.5,), (0.9,), (2.0**-10,)
SHAPES = -INF, -20.0, -2.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.25, 4.0


def hinge_slope(m, x):
    return m.where(x < 1, -1.0, 0.0)


def squared_hinge(m, x):
    return m.maximum(1 - x, 0) ** 2


def smooth_hinge(m, x):
    return m.where(x < 0, 0.5 - x, squared_hinge(m, x) / 2)


def modified_huber(m, x):
    return m.where(x < -1, -4 * x, m.minimum(m.maximum(1 - x, 0), 2) ** 2)


def ramp(m, x, high):
    return -m.minimum(m.maximum(1 - x, 0), high)


# Of a margin: value, slope, bounds, and whether the slope keeps a NaN.
MARGINS = {
    "hinge": (lambda m, x: m.maximum(1 - x, 0), hinge_slope, (0.5, 0), False),
    "squared_hinge": (squared_hinge, lambda m, x: 2 * ramp(m, x, INF), (2, 0.5), True),
    "smooth_hinge": (smooth_hinge, lambda m, x: ramp(m, x, 1), (2, 0.5), True),
    "logistic": (
        lambda m, x: softplus(m, -x),
        lambda m, x: -sigmoid(m, -x),
        (3, 3),
        True,
    ),
    "exponential": (lambda m, x: m.exp(-x), lambda m, x: -m.exp(-x), (6, 6), True),
    "perceptron": (
        lambda m, x: m.maximum(-x, 0),
        lambda m, x: m.where(x < 0, -1.0, 0.0),
        (0, 0),
        False,
    ),
    "modified_huber": (
        modified_huber,
        lambda m, x: 2 * ramp(m, x, 2),
        (2, 0.5),
        True,
    ),
    "squared": (lambda m, x: (1 - x) ** 2, lambda m, x: -2 * (1 - x), (2, 0.5), True),
}


def of_margins() -> dict[str, Loss]:
    """As the losses call them: with margins that have been widened."""
    found = {}
    for name, (value, slope, bounds, keeps_nan) in MARGINS.items():
        phi = getattr(margins, name)
        found[f"margins.{name}"] = Loss(
            lambda x, _, phi=phi: phi(x.astype(jnp.float32)),
            lambda m, x, _, value=value: value(m, x),
            lambda m, x, _, slope=slope: slope(m, x),
            bounds,
            keeps_nan=keeps_nan,
        )
    return found


def of_label(formula: Callable, *, turned: bool) -> Callable:
    """A formula of the margin as one of score and label; a slope turns with it."""
    return lambda m, x, y, *h: (y if turned else 1) * formula(m, y * x, *h)


def of_scores() -> dict[str, Loss]:
    """The binary losses whose labels are -1 and 1."""
    names = [n for n in MARGINS if n not in ("squared", "smooth_hinge")]
    return {
        name: Loss(
            getattr(jaxloss, name),
            of_label(MARGINS[name][0], turned=False),
            of_label(MARGINS[name][1], turned=True),
            MARGINS[name][2],
            seconds=(-1.0, 1.0),
            keeps_nan=MARGINS[name][3],
        )
        for name in names
    }


def of_logits() -> dict[str, Loss]:
    """The binary losses whose labels are 0 and 1."""
    signed = lambda f, *, turned: (
        lambda m, x, y, *h: of_label(f, turned=turned)(m, x, 2 * y - 1, *h)
    )
    nll = signed(MARGINS["logistic"][0], turned=False)
    nll_slope = signed(MARGINS["logistic"][1], turned=True)
    faded, faded_slope = signed(focal, turned=False), signed(focal_slope, turned=True)
    weigh = lambda f: lambda m, x, y, v: (v if y else 1) * f(m, x, y)
    share = lambda f: lambda m, x, y, g, a: (a if y else 1 - a) * f(m, x, y, g)
    entropy, focus = jaxloss.sigmoid_cross_entropy, jaxloss.sigmoid_focal
    labels = 0.0, 1.0
    found = {
        "sigmoid_cross_entropy": Loss(entropy, nll, nll_slope, (2, 2), seconds=labels),
        "sigmoid_cross_entropy of pos_weight": Loss(
            lambda x, y, v: entropy(x, y, pos_weight=v),
            weigh(nll),
            weigh(nll_slope),
            (2, 3),
            ((0.1,), (9.0,)),
            labels,
            floor=9 * FLUSH,
        ),
        "sigmoid_focal of alpha": Loss(
            lambda x, y, g, a: focus(x, y, gamma=g, alpha=a),
            share(faded),
            share(faded_slope),
            (12, 12),
            ((0.5, 0.25), (2.0, 0.25), (2.0, 0.9)),
            labels,
            floor=FLUSH,
        ),
    }
    for gamma in (0.0, 0.5, 1.0, 2.0, 5.0):
        bound = 6 + 2.5 * gamma  # a power of a rounded probability
        found[f"sigmoid_focal of gamma {gamma:g}"] = Loss(
            lambda x, y, g: focus(x, y, gamma=g),
            faded,
            faded_slope,
            (bound, bound),
            ((gamma,),),
            labels,
            floor=FLUSH,
        )
    return found


def residual(
    fn: Callable, value: Callable, slope: Callable, bounds, *settings, **more
) -> Loss:
    return Loss(
        fn,
        lambda m, r, _, *h: value(m, r, *h),
        lambda m, r, _, *h: slope(m, r, *h),
        bounds,
        settings or ((),),
        **more,
    )


LOSSES = {
    **of_margins(),
    **of_scores(),
    **of_logits(),
    "squared_error": residual(
        jaxloss.squared_error, lambda m, r: r**2, lambda m, r: 2 * r, (1, 0)
    ),
    "absolute_error": residual(
        jaxloss.absolute_error, lambda m, r: m.abs(r), lambda m, r: m.sign(r), (1, 0)
    ),
    "pinball": residual(
        lambda p, t, q: jaxloss.pinball(p, t, quantile=q),
        lambda m, r, q: side(m, r, q) * m.abs(r),
        lambda m, r, q: side(m, r, q) * m.sign(r),
        (1, 1),
        *QUANTILES,
    ),
    "expectile": residual(
        lambda p, t, q: jaxloss.expectile(p, t, expectile=q),
        lambda m, r, q: side(m, r, q) * r**2,
        lambda m, r, q: 2 * side(m, r, q) * r,
        (2, 1),
        *QUANTILES,
    ),
    "quantile_huber": residual(
        lambda p, t, q, d: jaxloss.quantile_huber(p, t, quantile=q, delta=d),
        lambda m, r, q, d: side(m, r, q) * huber(m, r, d),
        lambda m, r, q, d: side(m, r, q) * clip(m, r, d),
        (2, 2),
        *((q, d) for q in (0.5, 0.9) for d in (1.0, 0.1)),
    ),
    "huber": residual(
        lambda p, t, d: jaxloss.huber(p, t, delta=d),
        huber,
        clip,
        (1, 1),
        *((1.0,), (2.0**-9,), (50.0,)),
    ),
    "smooth_l1": residual(
        lambda p, t, b: jaxloss.smooth_l1(p, t, beta=b),
        lambda m, r, b: huber(m, r, b) / b if b else m.abs(r),
        lambda m, r, b: clip(m, r / b, 1) if b else m.sign(r),
        (2, 2),
        *((1.0,), (2.0**-9,), (50.0,), (0.0,)),
    ),
    "log_cosh": residual(jaxloss.log_cosh, log_cosh, lambda m, r: m.tanh(r), (2, 3)),
    "epsilon_insensitive": residual(
        lambda p, t, e: jaxloss.epsilon_insensitive(p, t, epsilon=e),
        lambda m, r, e: m.maximum(m.abs(r) - e, 0),
        lambda m, r, e: m.where(m.abs(r) > e, m.sign(r), 0 * m.sign(r)),
        (1, 0),
        *((0.1,), (0.0,), (10.0,)),
    ),
    "general_robust": residual(
        lambda p, t, a, c: jaxloss.general_robust(p, t, alpha=a, scale=c),
        barron,
        barron_slope,
        # 2 and 2, times 1 + condition number, of which alpha is the most.
        (10, 10),
        *((a, c) for a in SHAPES for c in (1.0, 0.5)),
        floor=64 * FLUSH,
        largest=2.0**126,
    ),
}


# --- the check -----------------------------------------------------------------------


def every(dtype: np.dtype) -> np.ndarray:
    return np.arange(2**16, dtype=np.uint16).view(dtype)


def program(fn: Callable) -> Callable:
    """Value and gradient of all inputs."""

    @jax.jit
    def evaluate(x, second, *hyper):
        value, pull = jax.vjp(lambda x: fn(x, second, *hyper), x)
        return value, *pull(jnp.ones_like(value))

    return evaluate


def errors(got: np.ndarray, true: np.ndarray, floor: float) -> np.ndarray:
    """In ulps of the truth in the dtype of the results; 0 where off by the floor.

    An infinite result counts as the number behind the largest.
    """
    beyond = 2.0 ** int(jnp.finfo(got.dtype).maxexp)
    clipped = np.clip(true, -beyond, beyond)
    away = np.abs(np.clip(got.astype(np.float64), -beyond, beyond) - clipped)
    off = np.where(away <= floor, 0, away / ulp(clipped, got.dtype))
    both = np.isnan(true) & np.isnan(got)
    return np.where(both, 0, np.where(np.isnan(off), INF, off))


@np.errstate(all="ignore")  # signalling NaNs are numbers, too
def shortfalls(loss: Loss, dtype: np.dtype) -> list[tuple]:
    """The worst error of value and gradient in each setting, in units of its bound."""
    x, evaluate = every(dtype), program(loss.fn)
    wide = x.astype(np.float64)
    found = []
    for setting in loss.settings:
        # As float32 has them, for a loss computes with that.
        hyper = [np.float32(h) for h in setting]
        for second in loss.seconds:
            results = evaluate(x, np.full(x.shape, second, dtype), *hyper)
            given = second, *map(float, hyper)
            allowed = loss.bounds[0], 0.5 + loss.bounds[1] * 2.0**-12
            for result, formula, bound in zip(
                results, (loss.value, loss.slope), allowed, strict=True
            ):
                off = judged(loss, np.asarray(result), formula, wide, given)
                at = int(off.argmax())
                found.append((off[at] <= bound, off[at], bound, x[at], setting, second))
                verify(formula, wide[np.argsort(-off)[:2]], given)
    assert evaluate._cache_size() == 1
    return [each[1:] for each in found if not each[0]]


def judged(loss, result, formula, wide, given) -> np.ndarray:
    """The errors, and 0 where nothing is claimed."""
    nan = np.isnan(wide)
    true, at_zero = (formula(np, v, *given) for v in (wide, np.copysign(0, wide)))
    off = errors(result, true, loss.floor)
    # XLA:CPU may read a subnormal number as 0.
    unread = np.abs(wide) < SMALLEST
    off = np.where(unread, np.minimum(off, errors(result, at_zero, loss.floor)), off)
    unsaid = (np.abs(wide) > loss.largest) | np.isnan(true)
    lost = nan & ~np.isnan(result)
    allowed = not loss.keeps_nan and formula is loss.slope
    return np.where(
        nan, np.where(lost & (not allowed), INF, 0), np.where(unsaid, 0, off)
    )


def verify(formula, x: np.ndarray, given) -> None:
    """NumPy's truth is that of mpmath, to 2^-40."""
    with mp.workdps(80):
        for v in x[np.isfinite(x)].tolist():
            true = formula(MP, mp.mpf(v), *given)
            if SMALLEST <= abs(true) < 2.0**128:
                got = float(formula(np, np.float64(v), *given))
                assert abs(got - true) <= 2.0**-40 * abs(true), (v, given)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_every_half_precision_number(name, dtype):
    """Value and gradient are within their bounds, and a NaN is one, at all 65 536."""
    assert shortfalls(LOSSES[name], dtype) == []


def test_one_input_that_is_off_is_found():
    """Of 65 536, by one part in 128: in the value and in the gradient."""
    dtype, at = HALVES[0], -2.71875
    bent = lambda r, t: jnp.where(r == at, 1 + 2.0**-7, 1) * jaxloss.squared_error(r, t)
    found = shortfalls(LOSSES["squared_error"]._replace(fn=bent), dtype)
    assert [(x, bound) for _, bound, x, *_ in found] == [(at, 1), (at, 0.5)]
    (of_value, *_), (of_slope, *_) = found
    assert of_value > 2**15
    assert of_slope <= 2


def test_a_slope_that_loses_a_nan_is_found():
    """Of the two that do, only because they say so."""
    loss = LOSSES["hinge"]
    assert not loss.keeps_nan
    found = shortfalls(loss._replace(keeps_nan=True), HALVES[1])
    assert [(off, second) for off, *_, second in found] == [(INF, -1.0), (INF, 1.0)]
