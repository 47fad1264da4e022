"""Losses of many labels, any number of which may hold."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, stable
from jaxloss.stable import xla


@_jit.kernel(gamma_positive="[0, inf)", gamma_negative="[0, inf)", shift="[0, 1)")
def asymmetric(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma_positive: float | jax.Array = 1.0,
    gamma_negative: float | jax.Array = 4.0,
    shift: float | jax.Array = 0.05,
) -> jax.Array:
    r"""Asymmetric loss: a focal loss that forgives easy negatives entirely.

    Also called: ASL, AsymmetricLoss, AsymmetricLossMultiLabel, asymmetric focal loss.

    .. math::
       \ell = -y\,(1-p)^{\gamma_+} \log p - (1-y)\,m^{\gamma_-} \log(1-m),
       \qquad p = \sigma(\text{logit}),\; m = \max(p - c, 0)

    Args:
      logits: Floating array of any shape; log-odds of the positive class.
      labels: Array of the same shape, boolean, integer or floating, in [0, 1]; cast to
        the dtype of `logits`.  Soft labels mix the two terms.
      gamma_positive: Focusing exponent >= 0 of the positives.  A number, or an array
        that broadcasts to the logits.
      gamma_negative: The same of the negatives; mostly larger, because they are many.
      shift: The probability c, in [0, 1), up to which a negative costs nothing.  A
        number, or an array that broadcasts to the logits.

    Returns:
      Per-element losses >= 0 of the same shape, in nats; 0 at an infinite logit of the
      right sign.

    Raises:
      TypeError: If `logits` is not floating or `labels` not real.
      ValueError: If the shapes differ, or a hyperparameter is a Python number outside
        its range.

    Gradient:
      That of `sigmoid_focal` for y = 1.  For y = 0, with n = 1 - m,
      `p m^g (g (1-p) (-log n) / m + (1-p) / n)` with respect to the logit, g being
      `gamma_negative`, and 0 where p <= `shift`.  Bounded.  Not convex.

    Use:
      task: multi-label
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: no
      when: Each example has few of very many labels, and some that hold were not
        annotated.
      not when: Calibrated probabilities are needed: use `sigmoid_cross_entropy`, with
        `pos_weight` if positives are rare.

    Reference:
      Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021.

    Example:
      >>> jaxloss.asymmetric(jnp.array([0.0, 0.0, -4.0]), jnp.array([1, 0, 0]))
      Array([0.3465736 , 0.02451505, 0.        ], dtype=float32)
    """
    name = "asymmetric"
    (x,) = _checks.floating(name, logits=logits)
    (y,) = _checks.real(name, x, labels=labels)
    _checks.same_shape(name, logits=x, labels=y)
    up = _checks.parameter(name, x, gamma_positive=gamma_positive)
    down = _checks.parameter(name, x, gamma_negative=gamma_negative)
    shift = _checks.parameter(name, x, shift=shift)
    return _asymmetric(x, y, up, down, shift)


@_jit.kernel("axis")
def zlpr(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""ZLPR: all labels that hold above 0, and 0 above all others.

    Also called: zero-bounded log-sum-exp and pairwise rank-based loss, ZlprLoss,
    multilabel_categorical_crossentropy.

    .. math::
       \ell = \log\Big(1 + \sum_{i \in P} e^{-x_i}\Big)
            + \log\Big(1 + \sum_{j \in N} e^{x_j}\Big)

    Args:
      logits: Floating array with the labels along `axis`.
      labels: Array of the same shape, boolean, integer or floating: 1 for the labels P
        that hold, 0 for the others, N.
      axis: The axis of the labels.
      where: Boolean mask of the shape of `logits`; a masked label is in neither set.

    Returns:
      One loss >= 0 per example, in nats; NaN if a label that counts is neither 0 nor 1.

    Raises:
      TypeError: If `logits` is not floating, `labels` not real, or `where` not boolean.
      ValueError: If a shape does not match, or `axis` is not an axis of `logits`.

    Gradient:
      `-exp(-x_i) / (1 + sum_P)` with respect to the logit of a label that holds, and
      `exp(x_j) / (1 + sum_N)` of one that does not.  Bounded.  Convex, smooth.

    Use:
      task: multi-label
      activation: none (logits)
      range: [0, inf)
      robust: yes
      convex: yes
      when: Few of many labels hold and depend on each other; those with a logit above 0
        are predicted.
      not when: The probability of each label is needed: use `sigmoid_cross_entropy`.

    Reference:
      Su et al., "ZLPR: A Novel Loss for Multi-label Classification", 2022.

    Example:
      >>> labels = jnp.array([[1, 0, 0], [1, 1, 0]])
      >>> jaxloss.zlpr(jnp.array([[0.0, 0.0, 0.0], [3.0, 2.0, -4.0]]), labels)
      Array([1.7917595 , 0.18799594], dtype=float32)
    """
    name = "zlpr"
    (x,) = _checks.floating(name, logits=logits)
    _checks.at_least_1d(name, logits=x)
    axis = _checks.row_axis(name, axis, "label", logits=x)
    (y,) = _checks.real(name, x, labels=labels)
    counts = jnp.ones_like(x, bool)
    if where is not None:
        (counts,) = _checks.boolean(name, where=where)
    _checks.same_shape(name, logits=x, labels=y, where=counts)
    x, y, counts = (jnp.moveaxis(a, axis, -1) for a in (x, y, counts))
    finite = _finite(x)
    losses = _log1p_sum_exp(-finite, counts & (y == 1))
    losses = losses + _log1p_sum_exp(finite, counts & (y == 0))
    wrong = jnp.where(y == 1, -jnp.inf, jnp.inf)
    endless = jnp.any(counts & (x == wrong), axis=-1)
    known = jnp.all(~counts | (y == 0) | (y == 1), axis=-1)
    return _classes.nan_unless(known, losses + jnp.where(endless, jnp.inf, 0))


# --- the asymmetric loss -----------------------------------------------------------


class _Shifted:
    """A negative with log-odds x, of which the probability p counts beyond a shift.

    Without choices, of which XLA:CPU would write the alternatives to memory; nor does
    it write constants, if those of the value are `opaque` and those of slopes are not.
    """

    def __init__(self, x: jax.Array, shift: jax.Array, opaque: bool = False) -> None:
        tiny = float(jnp.finfo(x.dtype).tiny)
        constants = (0.0, 0.5, 1.0, tiny, -math.log(tiny))
        if opaque:
            constants = xla.opaque_constants(x, *constants)
        zero, half, one, least, end = constants
        above = lambda x: jnp.maximum(jnp.sign(x), zero)
        positive = above(x)
        negative = one - positive
        a = jnp.abs(x)
        e = jnp.exp(-a)
        likelier = one / (one + e)
        self.p = (positive + negative * e) * likelier
        self.q = (negative + positive * e) * likelier
        # -log p and -log n, as far as they are those of numbers that are not 0; with
        # what rounding 1 - q and 1 - m lost, where these are near 1.
        lost = positive * ((one - self.p) - self.q)
        self.positive_nll = -(jnp.log(jnp.maximum(self.p, least)) + lost)
        self.m = jnp.maximum(self.p - shift, zero)  # what is left of p
        small_m = above(half - self.m)
        large_m = one - small_m
        self.n = small_m * (one - self.m) + large_m * jnp.maximum(self.q + shift, least)
        self.negative_nll = -(jnp.log(self.n) + small_m * ((one - self.n) - self.m))
        # The logarithms beyond that of a number that underflows go on as x does.
        unshifted = above(least - shift)
        self.a, self.zero, self.end = a, zero, end
        self.underflows = negative, large_m * unshifted
        self.shift, self.unshifted = shift, unshifted
        self.small_m, self.one = small_m, one
        self.counts = above(self.m)

    def power(self, gamma: jax.Array) -> jax.Array:
        """`m^gamma`, but 0 at m = 0, for the derivatives."""
        return self.counts * jnp.power(self.m, gamma)

    @property
    def nll(self) -> jax.Array:
        """`-log n`, finite: an infinite logit is as good as the largest number."""
        a = jnp.minimum(self.a, float(jnp.finfo(self.a.dtype).max))
        return self.negative_nll + self.underflows[1] * jnp.maximum(
            a - self.end, self.zero
        )

    @property
    def per_m(self) -> jax.Array:
        """`1 / m`, by which nothing is a square of a small number, which is 0."""
        return self.one / (self.m + (self.one - self.counts))

    @property
    def rate(self) -> jax.Array:
        """`-log(1 - m) / m`, which is `1 + m / 2 + ...`."""
        return self.nll * self.per_m + (self.one - self.counts)

    @property
    def share(self) -> jax.Array:
        """`q / (1 - m)`."""
        return self.unshifted + (self.one - self.unshifted) * (self.q / self.n)

    @property
    def log_m(self) -> jax.Array:
        """`log m`, from 1 - m where that is less than one half."""
        lost = (self.one - self.small_m) * ((self.one - self.m) - self.n)
        return jnp.log(self.m + (self.one - self.counts)) + lost * self.per_m

    def relative_slope(self, gamma: jax.Array) -> jax.Array:
        """The slope of the loss in x over `p m^g`."""
        return gamma * self.q * self.rate + self.share

    def relative_curve(self, gamma: jax.Array) -> jax.Array:
        """What the slope of `m^g relative_slope` in m is made of."""
        return (gamma - 1) * self.q * self.rate + 2 * self.share


def _negative_dxx(x: jax.Array, gamma: jax.Array, shift: jax.Array) -> jax.Array:
    s = _Shifted(x, shift)
    # Of (q - p) slope + p share^2, in which share - share^2 is share shift / n.
    slope = s.relative_slope(gamma) - gamma * s.p * s.rate
    along = s.q * slope - s.p * s.share * s.shift / s.n
    across = s.p * s.per_m * gamma * s.q * s.relative_curve(gamma)
    return s.p * s.power(gamma) * (along + across)


def _negative_dxdgamma(x: jax.Array, gamma: jax.Array, shift: jax.Array) -> jax.Array:
    s = _Shifted(x, shift)
    inner = s.log_m * s.relative_slope(gamma) + s.q * s.rate
    return s.p * s.power(gamma) * inner


def _negative_dxdshift(x: jax.Array, gamma: jax.Array, shift: jax.Array) -> jax.Array:
    s = _Shifted(x, shift)
    inner = gamma * s.per_m * s.relative_curve(gamma) + s.share / s.n
    return -s.p * s.power(gamma) * inner


def _negative_dgamma2(x: jax.Array, gamma: jax.Array, shift: jax.Array) -> jax.Array:
    s = _Shifted(x, shift)
    return s.power(gamma) * s.nll * s.log_m * s.log_m


def _negative_dgammadshift(
    x: jax.Array, gamma: jax.Array, shift: jax.Array
) -> jax.Array:
    s = _Shifted(x, shift)
    return -s.power(gamma) * ((gamma * s.rate + 1 / s.n) * s.log_m + s.rate)


def _negative_dshift2(x: jax.Array, gamma: jax.Array, shift: jax.Array) -> jax.Array:
    s = _Shifted(x, shift)
    inner = (gamma - 1) * s.rate + 2 / s.n
    return s.power(gamma) * (gamma * s.per_m * inner + 1 / s.n / s.n)


@jax.jit
@stable.slopes(_negative_dxx, _negative_dxdgamma, _negative_dxdshift)
def _negative_dx(x: jax.Array, gamma: jax.Array, shift: jax.Array) -> jax.Array:
    s = _Shifted(x, shift)
    return s.p * s.power(gamma) * s.relative_slope(gamma)


@jax.jit
@stable.slopes(_negative_dxdgamma, _negative_dgamma2, _negative_dgammadshift)
def _negative_dgamma(x: jax.Array, gamma: jax.Array, shift: jax.Array) -> jax.Array:
    s = _Shifted(x, shift)
    return s.power(gamma) * s.nll * s.log_m


@jax.jit
@stable.slopes(_negative_dxdshift, _negative_dgammadshift, _negative_dshift2)
def _negative_dshift(x: jax.Array, gamma: jax.Array, shift: jax.Array) -> jax.Array:
    s = _Shifted(x, shift)
    return -s.power(gamma) * (gamma * s.rate + 1 / s.n)


@jax.jit
@stable.slopes(_negative_dx, _negative_dgamma, _negative_dshift)
def _negative(x: jax.Array, gamma: jax.Array, shift: jax.Array) -> jax.Array:
    """`m^gamma (-log(1 - m))` with `m = max(sigmoid(x) - shift, 0)`."""
    s = _Shifted(x, shift)
    return s.power(gamma) * s.nll


def _asymmetric_dx(
    x: jax.Array, y: jax.Array, up: jax.Array, down: jax.Array, shift: jax.Array
) -> jax.Array:
    positive = _negative_dx(-x, up, jnp.zeros_like(shift))
    return (1 - y) * _negative_dx(x, down, shift) - y * positive


def _asymmetric_dy(
    x: jax.Array, y: jax.Array, up: jax.Array, down: jax.Array, shift: jax.Array
) -> jax.Array:
    gap = _negative(-x, up, jnp.zeros_like(shift)) - _negative(x, down, shift)
    return jnp.where(jnp.isinf(x), 0, gap)


def _asymmetric_dup(
    x: jax.Array, y: jax.Array, up: jax.Array, down: jax.Array, shift: jax.Array
) -> jax.Array:
    return y * _negative_dgamma(-x, up, jnp.zeros_like(shift))


def _asymmetric_ddown(
    x: jax.Array, y: jax.Array, up: jax.Array, down: jax.Array, shift: jax.Array
) -> jax.Array:
    return (1 - y) * _negative_dgamma(x, down, shift)


def _asymmetric_dshift(
    x: jax.Array, y: jax.Array, up: jax.Array, down: jax.Array, shift: jax.Array
) -> jax.Array:
    return (1 - y) * _negative_dshift(x, down, shift)


@xla.rematerialised
@jax.jit
@stable.slopes(
    _asymmetric_dx,
    _asymmetric_dy,
    _asymmetric_dup,
    _asymmetric_ddown,
    _asymmetric_dshift,
)
def _asymmetric(
    x: jax.Array, y: jax.Array, up: jax.Array, down: jax.Array, shift: jax.Array
) -> jax.Array:
    """`(1 - y) N(x) + y N(-x)`, the latter without a shift; N as in `_negative`."""
    s = _Shifted(x, shift, opaque=True)
    wrong = y * s.underflows[0] + (s.one - y) * s.underflows[1]
    beyond = jnp.maximum(xla.unless_right(wrong, s.a) - s.end, s.zero)
    positive = jnp.power(s.q, up) * s.positive_nll
    negative = jnp.power(s.m, down) * s.negative_nll
    return y * positive + (s.one - y) * negative + wrong * beyond


# --- labels that compete with 0 ----------------------------------------------------


@stable.slopes(jnp.ones_like)
def _finite(x: jax.Array) -> jax.Array:
    """An infinite logit is as good as the largest number."""
    largest = float(jnp.finfo(x.dtype).max)
    return jnp.clip(x, -largest, largest)


def _log1p_sum_exp(x: jax.Array, where: jax.Array) -> jax.Array:
    """`log(1 + sum(exp(x)))` over the entries that `where` keeps."""
    return stable.softplus(stable.logsumexp(x, where=where))
