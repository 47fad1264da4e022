"""Penalties on parameters, and the entropy of predictions.

A penalty is a sum over the arrays of a pytree, which you multiply by a weight of your
choice.  In an objective use `Mean.constant`: it counts the penalty once, however the
batch is split.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable
from jaxloss.stable import rows


@_jit.kernel(trees=("params",))
def l1(params: Any) -> jax.Array:
    r"""Sum of magnitudes: the penalty that makes parameters exactly 0.

    Also called: lasso, L1 penalty, L1 regularisation, L1 norm.

    .. math:: R(w) = \sum_i |w_i|

    Args:
      params: Floating array, or a pytree of them.  Leave out what should not shrink,
        such as biases and normalisation scales.

    Returns:
      Scalar >= 0, at least float32, in the units of the parameters; 0 for an empty
      tree.

    Raises:
      TypeError: If a leaf is not floating; the message gives its path.

    Gradient:
      `sign(w)`, and 0 at 0.  Convex.

    Use:
      task: regularization
      activation: none (parameters)
      range: [0, inf)
      robust: yes
      convex: yes
      when: Parameters that do little should become exactly 0.
      not when: Inputs are correlated, and an arbitrary one of them would be chosen: use
        `elastic_net`.

    Reference:
      Tibshirani, "Regression Shrinkage and Selection via the Lasso", Journal of the
      Royal Statistical Society B 58, 1996.

    Example:
      >>> jaxloss.l1({"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])})
      Array(3.5, dtype=float32)
    """
    return _total([jnp.sum(stable.magnitude(w)) for w in _leaves("l1", params)])


@_jit.kernel(trees=("params",))
def l2(params: Any) -> jax.Array:
    r"""Sum of squares: the penalty that shrinks parameters in proportion.

    Also called: ridge, weight decay, L2 penalty, L2 regularisation, Tikhonov
    regularisation.

    .. math:: R(w) = \sum_i w_i^2

    Some texts have a factor 1/2; there the penalty is `0.5 * l2(params)`.

    Args:
      params: Floating array, or a pytree of them.  Leave out what should not shrink,
        such as biases and normalisation scales.

    Returns:
      Scalar >= 0, at least float32, in the units of the parameters squared; 0 for an
      empty tree.

    Raises:
      TypeError: If a leaf is not floating; the message gives its path.

    Gradient:
      `2 w`.  Convex, smooth.  With an adaptive optimizer the penalty is not weight
      decay.

    Use:
      task: regularization
      activation: none (parameters)
      range: [0, inf)
      robust: no
      convex: yes
      when: All parameters should stay small.
      not when: Most parameters should become exactly 0: use `l1`.

    Reference:
      Hoerl and Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal
      Problems", Technometrics 12, 1970.

    Example:
      >>> jaxloss.l2({"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])})
      Array(5.25, dtype=float32)
    """
    return _total([jnp.sum(jnp.square(w)) for w in _leaves("l2", params)])


@_jit.kernel(trees=("params",), l1_ratio="[0, 1]")
def elastic_net(params: Any, *, l1_ratio: float | jax.Array = 0.5) -> jax.Array:
    r"""Mixture of `l1` and `l2`: sparse, and keeps correlated inputs together.

    Also called: elastic net penalty, L1 and L2 regularisation.

    .. math:: R(w) = \rho \sum_i |w_i| + (1 - \rho) \sum_i w_i^2

    Args:
      params: Floating array, or a pytree of them.
      l1_ratio: Share rho of the magnitudes, a scalar in [0, 1]: 1 is `l1`, 0 is `l2`.
        The `l1_ratio` of scikit-learn uses half the squares.

    Returns:
      Scalar >= 0, at least float32; 0 for an empty tree.

    Raises:
      TypeError: If a leaf is not floating; the message gives its path.
      ValueError: If `l1_ratio` is a Python number outside [0, 1] or an array.

    Gradient:
      `l1_ratio sign(w) + 2 (1 - l1_ratio) w`, and 0 at 0.  With respect to `l1_ratio`,
      `l1(w) - l2(w)`.  Convex.

    Use:
      task: regularization
      activation: none (parameters)
      range: [0, inf)
      robust: for l1_ratio == 1
      convex: yes
      when: Parameters should be sparse, and correlated inputs should be kept or dropped
        together.
      not when: One of the two penalties suffices: use `l1` or `l2`.

    Reference:
      Zou and Hastie, "Regularization and Variable Selection via the Elastic Net",
      Journal of the Royal Statistical Society B 67, 2005.

    Example:
      >>> jaxloss.elastic_net(jnp.array([1.0, -2.0]), l1_ratio=0.25)
      Array(4.5, dtype=float32)
    """
    leaves = _leaves("elastic_net", params)
    like = _total([jnp.zeros((), w.dtype) for w in leaves])
    rho = _checks.parameter("elastic_net", like, l1_ratio=l1_ratio)
    # Shares of the squares: the sum of all may overflow, and 0 times that is NaN.
    mixed = lambda w: rho * stable.magnitude(w) + ((1 - rho) * w) * w
    return _total([jnp.sum(mixed(w)) for w in leaves])


@_jit.kernel("axis", trees=("logits", "where"))
def entropy(logits: Any, *, axis: int = -1, where: Any = None) -> Any:
    r"""Entropy of the softmax: how uncertain a prediction is.

    Also called: entropy bonus, confidence penalty, entropy regularisation.

    .. math:: H = -\sum_j p_j \log p_j, \qquad p = \operatorname{softmax}(z)

    Subtracted from a loss it penalises confidence; in policy gradients it rewards
    exploration.

    Args:
      logits: Floating array with the classes along `axis`, or a pytree of them; -inf
        excludes a class.
      axis: The class axis.
      where: Boolean mask of the shape of `logits`: the classes that count; for a
        pytree, one of the same structure.

    Returns:
      Per-example entropies of the shape of `logits` without `axis`, at least float32,
      in nats, from 0 to log K; 0 if every class is excluded.  For a pytree of logits, a
      pytree of entropies.

    Raises:
      TypeError: If `logits` is not floating or `where` is not boolean.
      ValueError: If the shapes differ or `axis` is not an axis of `logits`.

    Gradient:
      `-p_j (log p_j + H)` with respect to logit j: 0 where all classes are equally
      likely and, in the limit, where one is certain.  Neither convex nor concave in the
      logits.

    Use:
      task: regularization
      activation: none (logits)
      range: [0, log K]
      robust: yes
      convex: no
      when: Added to an objective: with a minus sign against over-confidence or for
        exploration, with a plus sign to make predictions confident.
      not when: The labels themselves should be less certain: use
        `softmax_cross_entropy` with `label_smoothing`.

    Reference:
      Pereyra et al., "Regularizing Neural Networks by Penalizing Confident Output
      Distributions", ICLR workshop, 2017.

    Example:
      >>> jaxloss.entropy(jnp.array([[0.0, 0.0], [20.0, 0.0]]))
      Array([6.9314718e-01, 4.3284228e-08], dtype=float32)
    """
    if where is None:
        return jax.tree.map(lambda z: _entropy_along(axis, z, None), logits)
    return jax.tree.map(lambda z, m: _entropy_along(axis, z, m), logits, where)


def _leaves(loss: str, params: Any) -> tuple[jax.Array, ...]:
    """The leaves in one dtype, at least float32: no sum is in half precision."""
    named = jax.tree_util.tree_leaves_with_path(params)
    return _checks.floating(
        loss, **{f"params{jax.tree_util.keystr(path)}": leaf for path, leaf in named}
    )


def _total(sums: list[jax.Array]) -> jax.Array:
    return sum(sums[1:], sums[0]) if sums else jnp.zeros((), _checks.default_float())


def _entropy_along(axis: int, logits: ArrayLike, where: ArrayLike | None) -> jax.Array:
    (logits,) = _checks.floating("entropy", logits=logits)
    if where is not None:
        (where,) = _checks.boolean("entropy", where=where)
        _checks.same_shape("entropy", logits=logits, where=where)
        logits = jnp.where(where, logits, -jnp.inf)
    axis = _checks.row_axis("entropy", axis, "class", logits=logits)
    return _entropy(jnp.moveaxis(logits, axis, -1))


# With d = x - max(x) the entropy is log(sum exp(d)) - E[d], two terms >= 0, and its
# gradient p (E[d] - d): of equal logits 0, and not a rounding error of their size.


@jax.custom_jvp
def _entropy(x: jax.Array) -> jax.Array:
    _, _, mean, rest = _below_largest(x)
    return (stable.log1p(rest) - mean)[..., 0]


@_entropy.defjvp
def _(primals, tangents):
    return _entropy(*primals), jnp.sum(_entropy_dx(*primals) * tangents[0], axis=-1)


@jax.custom_jvp
def _entropy_dx(x: jax.Array) -> jax.Array:
    below, e, mean, rest = _below_largest(x)
    return e * ((mean - below) / (1 + rest))


@_entropy_dx.defjvp
def _(primals, tangents):
    def plain(x: jax.Array) -> jax.Array:
        # As minus the derivative of the softmax along d, which knows how to center.
        largest = lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
        kept = x != -jnp.inf
        along = jnp.where(kept, jnp.where(kept, x, 0) - jnp.where(kept, largest, 0), 0)
        return -jax.jvp(stable.softmax, (x,), (along,))[1]

    return _entropy_dx(*primals), jax.jvp(plain, primals, tangents)[1]


def _below_largest(x: jax.Array) -> tuple[jax.Array, ...]:
    """d, of which -inf is the lowest number; exp(d); E[d]; the sum of exp(d) less 1."""
    largest = jnp.max(x, axis=-1, keepdims=True)
    top = jnp.where(largest == -jnp.inf, 0, largest)
    below = jnp.maximum(x - top, float(jnp.finfo(x.dtype).min))
    e, summed, weighed = rows.exponentials(x, top, 3)
    is_largest = x >= top
    ties = jnp.sum(is_largest, axis=-1, keepdims=True, dtype=x.dtype)
    others = jnp.sum(jnp.where(is_largest, 0, summed), axis=-1, keepdims=True)
    rest = others + jnp.maximum(ties - 1, 0)
    mean = jnp.sum(weighed * below, axis=-1, keepdims=True) / (1 + rest)
    return below, e, mean, rest
