"""Fenchel-Young losses, whose predicted probabilities may be sparse.

The prediction p maximises `<p, z> - Omega(p)`.  The regulariser Omega of softmax gives
every class a probability; others give unlikely classes exactly 0.  Each has its own
loss, whose gradient is prediction minus target, as for cross entropy.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _classes, _jit, stable
from jaxloss.stable import xla


@_jit.kernel("axis", ids="labels")
def sparsemax(logits: ArrayLike, labels: ArrayLike, *, axis: int = -1) -> jax.Array:
    r"""Sparsemax loss: like cross entropy, with sparse probabilities.

    Also called: sparsemax loss, SparsemaxLoss, multiclass_sparsemax_loss.

    .. math::
       \ell = \tfrac12 \|p - y\|^2 + \sum_j y_j \max(0, \tau - z_j), \qquad
       p = \max(0, z - \tau), \quad \sum_j p_j = 1

    This is `Omega*(z) + Omega(y) - <y, z>` with `Omega(p) = (|p|^2 - 1) / 2`, written
    as a sum of terms >= 0; p is the point of the simplex nearest to the logits z.

    Args:
      logits: Floating array with the classes along `axis`; a class of logit -inf has
        probability 0.
      labels: Integer class ids, of the shape of `logits` without `axis`; or a floating
        distribution y >= 0 of the shape of `logits`, whose sum, if not 1, is the weight
        of the example.
      axis: The axis of the classes.

    Returns:
      One loss >= 0 per example, in the units of the logits.  It is exactly 0 if p
      equals the label; for a class id, if its logit exceeds every other one by at least
      1.  Also 0 if no class has a finite logit, +inf if only the label has none, NaN if
      a class id is not one of the classes.

    Raises:
      TypeError: If `logits` is not floating, or `labels` of the wrong dtype.
      ValueError: If a shape does not match or `axis` is not an axis of `logits`.

    Gradient:
      `p sum(y) - y` with respect to the logits: it sums to 0 and is finite even where
      the loss is +inf.  `y - z`, up to a constant, with respect to a distribution (0
      for a class of logit -inf).  Convex; the second derivative in the logits is
      `diag(s) - s s^T / sum(s)` with s = 1 where p > 0 and 0 elsewhere, so it jumps
      where a probability becomes 0.

    Use:
      task: multi-class
      activation: none (logits)
      range: [0, inf]
      robust: yes
      convex: yes
      when: Unlikely classes should get probability 0, as in attention or multi-label
        text, and an example that is right by a margin should have no gradient.
      not when: Calibrated probabilities or their logarithms are needed: use
        `softmax_cross_entropy`.

    Reference:
      Martins and Astudillo, "From Softmax to Sparsemax: A Sparse Model of Attention and
      Multi-Label Classification", ICML 2016; Blondel et al., "Learning with
      Fenchel-Young Losses", JMLR 21, 2020.

    Example:
      >>> logits = jnp.array([[2.0, 0.5, 0.0], [0.5, 0.0, -2.0], [0.5, 0.0, -2.0]])
      >>> jaxloss.sparsemax(logits, jnp.array([0, 0, 2]))
      Array([0.    , 0.0625, 2.5625], dtype=float32)
    """
    return _loss_of(_classes.rows("sparsemax", labels, axis, logits=logits), power=1)


@_jit.kernel("axis", ids="labels")
def entmax15(logits: ArrayLike, labels: ArrayLike, *, axis: int = -1) -> jax.Array:
    r"""1.5-entmax loss: halfway between softmax and sparsemax, and smooth.

    Also called: entmax loss, 1.5-entmax loss, Entmax15Loss.

    .. math::
       \ell = \tfrac23 \sum_j (s_j - r_j)^2 (s_j + 2 r_j) +
       \sum_j y_j \max(0, 2\tau - z_j), \qquad
       s = \max(0, \tfrac z2 - \tau) = \sqrt p, \quad r = \sqrt y

    This is `Omega*(z) + Omega(y) - <y, z>` with `Omega(p) = 4/3 sum(p^1.5 - p)`,
    written as a sum of terms >= 0; with the threshold τ the probabilities p sum to 1.

    Args:
      logits: Floating array with the classes along `axis`; a class of logit -inf has
        probability 0.
      labels: Integer class ids, of the shape of `logits` without `axis`; or a floating
        distribution y >= 0 of the shape of `logits`, whose sum, if not 1, is the weight
        of the example.
      axis: The axis of the classes.

    Returns:
      One loss >= 0 per example, in the units of the logits.  It is exactly 0 if p
      equals the label; for a class id, if its logit exceeds every other one by at least
      2.  Also 0 if no class has a finite logit, +inf if only the label has none, NaN if
      a class id is not one of the classes.

    Raises:
      TypeError: If `logits` is not floating, or `labels` of the wrong dtype.
      ValueError: If a shape does not match or `axis` is not an axis of `logits`.

    Gradient:
      `p sum(y) - y` with respect to the logits: it sums to 0 and is finite even where
      the loss is +inf.  `2 sqrt(y) - z`, up to a constant, with respect to a
      distribution (0 for a class of logit -inf).  Convex, twice continuously
      differentiable in the logits; the second derivative is `diag(s) - s s^T / sum(s)`.

    Use:
      task: multi-class
      activation: none (logits)
      range: [0, inf]
      robust: yes
      convex: yes
      when: Sparse probabilities over many classes are wanted, as in sequence models,
        with a gradient that has no kinks.
      not when: As few classes as possible should have a probability: use `sparsemax`.

    Reference:
      Peters et al., "Sparse Sequence-to-Sequence Models", ACL 2019; Blondel et al.,
      "Learning with Fenchel-Young Losses", JMLR 21, 2020.

    Example:
      >>> logits = jnp.array([[2.0, 0.0, -1.0], [1.0, 1.0, -3.0], [1.0, 1.0, -3.0]])
      >>> jaxloss.entmax15(logits, jnp.array([0, 1, 2]))
      Array([0.        , 0.39052427, 4.390524  ], dtype=float32)
    """
    return _loss_of(_classes.rows("entmax15", labels, axis, logits=logits), power=2)


@_jit.kernel("axis", "max_fun")
def fenchel_young(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    max_fun: Callable[[jax.Array], jax.Array],
    axis: int = -1,
) -> jax.Array:
    r"""Fenchel-Young loss of a max function of your own, up to a constant.

    Also called: Fenchel-Young loss, make_fenchel_young_loss.

    .. math:: \ell = \Omega^*(s) - \langle y, s \rangle, \qquad
       \Omega^*(s) = \max_p\; \langle p, s \rangle - \Omega(p)

    Args:
      scores: Floating array with the components along `axis`.
      targets: Array of the same shape, boolean, integer or floating; a point y of the
        domain of Omega, such as a one-hot vector, a permutation or an average of them.
        Where it is 0, the score may be -inf if `max_fun` accepts that.
      max_fun: The convex function Omega*, from a vector to a number, which JAX can
        differentiate; applied to each example separately.  With `jax.nn.logsumexp` the
        loss is softmax cross entropy, with `jnp.max` the perceptron loss.
      axis: The axis that `max_fun` reduces.

    Returns:
      One loss per example, >= -Omega(y).  The term Omega(y) is left out, because it
      does not depend on the scores.  The loss is a difference of Omega* and a product,
      so it is only as accurate as they are.

    Raises:
      TypeError: If `scores` is not floating, `targets` not real, or `max_fun` not a
        function.
      ValueError: If the shapes differ, `axis` is not an axis of `scores`, or `max_fun`
        does not return a number.

    Gradient:
      `p - y` with respect to the scores, p being the gradient of `max_fun`; `-s` with
      respect to the targets (0 where a score is infinite).  Convex in the scores.

    Use:
      task: multi-class
      activation: none (logits)
      range: (-inf, inf)
      robust: yes (if the domain of Omega is bounded)
      convex: yes
      when: The output is structured, such as a ranking, a matching or a path, and its
        maximum can be computed but its partition function cannot.
      not when: The output is one class: use `softmax_cross_entropy` or `sparsemax`.

    Reference:
      Blondel et al., "Learning with Fenchel-Young Losses", JMLR 21, 2020.

    Example:
      >>> scores, targets = jnp.array([[2.0, 1.0, 3.0]]), jnp.array([[1.0, 0.0, 0.0]])
      >>> jaxloss.fenchel_young(scores, targets, max_fun=jax.nn.logsumexp)
      Array([1.4076059], dtype=float32)
    """
    return _regret(scores, targets, max_fun, axis)


def _regret(
    scores: ArrayLike,
    targets: ArrayLike,
    max_fun: Callable[[jax.Array], jax.Array],
    axis: int,
) -> jax.Array:
    """`fenchel_young`, not compiled: for a function that is new in each call."""
    name = "fenchel_young"
    (s,) = _checks.floating(name, scores=scores)
    (y,) = _checks.real(name, s, targets=targets)
    _checks.at_least_1d(name, scores=s)
    _checks.same_shape(name, scores=s, targets=y)
    axis = _checks.row_axis(name, axis, "class", scores=s)
    s, y = jnp.moveaxis(s, axis, -1), jnp.moveaxis(y, axis, -1)
    largest = _each_row(name, max_fun, s)
    return largest - jnp.sum(_classes.weighted(y, s), axis=-1)


def _each_row(
    loss: str, max_fun: Callable[[jax.Array], jax.Array], scores: jax.Array
) -> jax.Array:
    """What `max_fun` makes of each row of scores, in their dtype."""
    if not callable(max_fun):
        has = f"type {type(max_fun).__name__}"
        _checks.wrong_kind(loss, "max_fun", has, "a function of a vector")
    each: Callable[[jax.Array], jax.Array] = max_fun
    for _ in scores.shape[:-1]:
        each = jax.vmap(each)
    found = jnp.asarray(each(scores))
    if found.shape != scores.shape[:-1]:
        has = f"results of shape {found.shape[scores.ndim - 1 :]}"
        _checks.fail(loss, "max_fun", has, "one number for each vector")
    return found.astype(scores.dtype)


# --- sparsemax and entmax ----------------------------------------------------------
#
# Both are p = max(0, z / power - tau) ** power: power 1 is sparsemax, 2 is 1.5-entmax.
# With Omega(p) = power^2 / (power + 1) sum(p^(1 + 1/power) - p) and roots p^(1/power)
# the loss is a Bregman divergence of the roots and what the label lacks to the
# threshold.


def _loss_of(rows: _classes.Rows, power: int) -> jax.Array:
    x, y = rows.scores, rows.labels
    if rows.are_ids:
        y = jax.nn.one_hot(y, x.shape[-1], dtype=x.dtype)
    return rows.mask_invalid(_loss(x, y, power))


def _parts(x: jax.Array, y: jax.Array, power: int) -> tuple[jax.Array, ...]:
    """(surplus, mass, root of p, root of y / mass, their difference, lack)."""
    excess = _excess(x, power)
    root, lack = _positive(excess), _positive(-excess)
    mass = jnp.sum(y, axis=-1, keepdims=True)
    surplus = _surplus(root**power, y)
    wanted, apart = (stable.safe_divide(v, mass) for v in (y, surplus))
    if power == 2:
        wanted = stable.sqrt(wanted)
        apart = _minus(root, wanted, apart)
    return surplus, mass, root, wanted, apart, lack


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _loss(x: jax.Array, y: jax.Array, power: int) -> jax.Array:
    """The loss of rows of logits, of distributions weighted by their sum."""
    _, mass, root, wanted, apart, lack = _parts(x, y, power)
    terms = jnp.square(apart) * (1 if power == 1 else root + 2 * wanted)
    terms = power / (power + 1) * mass * terms + power * _classes.weighted(y, lack)
    return jnp.sum(terms, axis=-1)


@_loss.defjvp
def _(power, primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    surplus, _, root, wanted, apart, lack = _parts(x, y, power)
    powers = root + wanted if power == 1 else root**2 + root * wanted + wanted**2
    offset = jnp.sum(apart * powers, axis=-1, keepdims=True) * power / (power + 1)
    # A class without a logit has no slope, as it has none in a cross entropy.
    gone = jnp.isinf(lack)
    by_label = power * (jnp.where(gone, 0, lack) - apart) + offset
    slope = surplus * dx + jnp.where(gone, 0, by_label) * dy
    return _loss(x, y, power), jnp.sum(slope, axis=-1)


# Differentiated as what it is: not by the quotient, in which the infinite slope of the
# root of a label 0 would have to cancel.
@stable.slopes(
    lambda a, b, squares: jnp.ones_like(a),
    lambda a, b, squares: -jnp.ones_like(b),
    lambda a, b, squares: jnp.zeros_like(squares),
)
def _minus(a: jax.Array, b: jax.Array, squares: jax.Array) -> jax.Array:
    """`a - b` of roots >= 0, from the difference of their squares."""
    return stable.safe_divide(squares, a + b)


@jax.custom_jvp
def _surplus(p: jax.Array, y: jax.Array) -> jax.Array:
    """`p sum(y) - y`, accurate even if p or y is nearly 1."""
    return p * _others(y) - y * _others(p)


@_surplus.defjvp
def _(primals, tangents):
    (p, y), (dp, dy) = primals, tangents
    total = lambda v: jnp.sum(v, axis=-1, keepdims=True)
    return _surplus(p, y), total(y) * dp + (p * total(dy) - dy)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _excess(x: jax.Array, power: int) -> jax.Array:
    """`x / power - tau` with the tau for which `sum(max(0, .) ** power)` is 1.

    The largest entry has all mass but that of the others, which is summed separately:
    so small probabilities are accurate, and so is 1 - p of a large one.
    """
    d, error = stable.difference(x, jnp.max(x, axis=-1, keepdims=True))
    d, error = d / power, error / power
    tau = xla.no_fma(_threshold(jnp.maximum(d, -1), power))
    low = jnp.zeros_like(tau)  # the digits that tau has no room for
    top = _largest(d)
    # Newton's iteration only removes rounding errors: twice, for those of many classes.
    for _ in range(2):
        root = _positive((d - tau) + (error - low))
        others = jnp.sum(jnp.where(top, 0, root**power), axis=-1, keepdims=True)
        missing = (1 + tau) + low  # of 1 - root at the top, where d is 0
        if power == 2:
            missing = missing * (2 - missing)
        slope = jnp.sum(_slope(root, power), axis=-1, keepdims=True)
        low = low + (others - missing) / (power * slope)
    return (d - tau) + (error - low)


@_excess.defjvp
def _(power, primals, tangents):
    (x,), (t,) = primals, tangents
    excess = _excess(x, power)
    s = _slope(_positive(excess), power)
    # `t - sum(s t) / sum(s)`, relative to t at the top, which may have nearly all of s.
    u = t - jnp.sum(jnp.where(_largest(s), t, 0), axis=-1, keepdims=True)
    mean = jnp.sum(s * u, -1, keepdims=True) / jnp.sum(s, -1, keepdims=True)
    return excess, (u - mean) / power


def _threshold(d: jax.Array, power: int) -> jax.Array:
    """The threshold of rows with maximum 0, whose part below -1 is cut off.

    Sorted, the classes above it come first: for each number of them it would be the
    root of a polynomial of degree `power`, and it is so for the largest number for
    which the last one is above it.
    """
    d = -jnp.sort(-d, axis=-1)
    count = 1 + lax.broadcasted_iota(jnp.int32, d.shape, d.ndim - 1)
    n = count.astype(d.dtype)
    mean = jnp.cumsum(d, axis=-1) / n
    spread = 1 / n
    if power == 2:
        variance = jnp.cumsum(jnp.square(d), axis=-1) / n - jnp.square(mean)
        spread = jnp.sqrt(jnp.maximum(spread - jnp.maximum(variance, 0), 0))
    tau = mean - spread
    last = jnp.sum(d > tau, axis=-1, keepdims=True, dtype=count.dtype)
    return jnp.sum(jnp.where(count == last, tau, 0), axis=-1, keepdims=True)


def _positive(x: jax.Array) -> jax.Array:
    """`max(x, 0)` with slope 0 at 0; NaN of NaN."""
    return jnp.where(x <= 0, 0, x)


def _slope(root: jax.Array, power: int) -> jax.Array:
    """The slope of `root ** power`, over `power`."""
    return jnp.sign(root) if power == 1 else root


def _largest(x: jax.Array) -> jax.Array:
    """Where the largest entry of each row is, the first of equal ones."""
    at = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    return at == lax.argmax(x, x.ndim - 1, jnp.int32)[..., None]


def _others(w: jax.Array) -> jax.Array:
    """`sum(w) - w` for w >= 0, summed without the largest."""
    top = _largest(w)
    rest = jnp.sum(jnp.where(top, 0, w), axis=-1, keepdims=True)
    lead = jnp.max(w, axis=-1, keepdims=True) - w
    return jnp.where(top, rest, rest + lead)
