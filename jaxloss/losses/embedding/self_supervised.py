"""Self-supervised losses without negatives: statistics of the components of a batch.

Each loss has one number per component, from the mean, the variance, the covariances or
the correlations of the components over the examples of a batch.  These are one matrix
of components by components, which comes from one matmul.  No array has two batch axes.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, _pairs, _whole_batch, stable


@_whole_batch.require("first", _whole_batch.BY_JIT)
@_jit.kernel(redundancy="[0, inf)")
def barlow_twins(
    first: ArrayLike,
    second: ArrayLike,
    *,
    redundancy: float | jax.Array = 0.005,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Barlow Twins: two views agree, and components do not repeat.

    Also called: BarlowTwinsLoss, barlow_loss_func, redundancy reduction,
    cross-correlation loss.

    .. math::
       \ell_i = (1 - C_{ii})^2 + \lambda \sum_{j \ne i} C_{ij}^2, \qquad
       C_{ij} = \operatorname{corr}(x_{\cdot i}, y_{\cdot j})

    C has the correlation of each component of the first view with each component of the
    second, over the examples of the batch.

    Args:
      first: Floating array `(..., batch, components)`, embeddings of one view of each
        example, not normalised.
      second: Same shape; embeddings of the other view.
      redundancy: Weight lambda >= 0 of correlations of different components; one for
        all, or one for each component.
      where: Boolean mask `(..., batch)`, default all true.  A masked example, such as
        padding, does not count.

    Returns:
      Per-component losses >= 0 `(..., components)`, without unit; the sum over the
      components is the loss of the paper.  A component that does not vary in one view
      has correlations of 0, and so the loss 1 or more; if there is one example or none,
      all losses are 1.  The first term keeps its digits where the views nearly agree; a
      correlation of different components has an error of a few eps.

    Raises:
      TypeError: If an embedding is not floating, `where` not boolean, or `redundancy`
        not a number.
      ValueError: If the shapes differ or have fewer than two axes, `where` does not
        fit, or `redundancy` is a Python number < 0; or if `train.value_and_grad` has
        split the batch, because this loss compares its examples.

    Gradient:
      For the sum of the losses, `2 (C_ii - 1)` and `2 lambda C_ij` with respect to the
      correlations.  With respect to a component, the gradient has mean 0 over the
      batch, is orthogonal to the component, and is inversely proportional to its
      standard deviation; it is 0 where the component does not vary.  Not convex.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: yes
      convex: no
      when: There are two views of each example and no labels, and the batch is too
        small for negatives.
      not when: The scale of the embeddings matters, or the terms need weights of their
        own: use `variance_hinge` and `covariance_penalty` of each view.

    Reference:
      Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction",
      ICML 2021.

    Example:
      >>> first = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
      >>> jaxloss.barlow_twins(first, -first)
      Array([4., 4.], dtype=float32)
    """
    name = "barlow_twins"
    x, y, valid = _pairs.examples(name, where, first=first, second=second)
    like = jnp.zeros((*x.shape[:-2], x.shape[-1]), x.dtype)
    weight = _checks.parameter(name, like, redundancy=redundancy)
    if x.shape[-2] == 0:
        return jnp.ones_like(like)
    u, v = (stable.unit(_deviations(z, valid)) for z in (x, y))
    # Not 1 - u.v, of which nothing is left where the views nearly agree.
    gap = 0.5 * jnp.sum(jnp.square(u - v), axis=-1)
    varies = jnp.any(u != 0, axis=-1) & jnp.any(v != 0, axis=-1)
    gap = jnp.where(varies, gap, 1)
    return jnp.square(gap) + weight * _total_of_others(_pairs.cosines(u, v))


@_whole_batch.require("embeddings", _whole_batch.BY_JIT)
@_jit.kernel(target="[0, inf)")
def variance_hinge(
    embeddings: ArrayLike,
    *,
    target: float | jax.Array = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Hinge of the standard deviation of each component, as in VICReg.

    Also called: variance_loss, VICReg variance term, std loss, anti-collapse term.

    .. math::
       \ell_i = \max(0,\; \gamma - s_i), \qquad
       s_i^2 = \frac{1}{n - 1} \sum_k (x_{ki} - \bar x_i)^2

    Args:
      embeddings: Floating array `(..., batch, components)`, not normalised.
      target: Standard deviation gamma >= 0 from which on a component costs nothing;
        one for all, or one for each component.
      where: Boolean mask `(..., batch)`, default all true.  A masked example, such as
        padding, does not count.

    Returns:
      Per-component losses in [0, gamma] `(..., components)`, in the unit of the
      embeddings: gamma for a component that does not vary; 0 if there is one example
      or none.  Their `jaxloss.mean` is the variance term of VICReg.

    Raises:
      TypeError: If `embeddings` are not floating, `where` not boolean, or `target` not
        a number.
      ValueError: If `embeddings` have fewer than two axes, `where` does not fit, or
        `target` is a Python number < 0; or if `train.value_and_grad` has split the
        batch, because this loss compares its examples.

    Gradient:
      `-(x - mean(x)) / (s (n - 1))` for a component with `s < gamma`, of length
      `(n - 1)^(-1/2)` however small s is; 0 for other components and for one that does
      not vary, where no direction is better than another.  Not convex.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: yes
      convex: no
      when: Another term draws embeddings together, and nothing else would keep them
        from becoming all equal.
      not when: Both views pass the same network and the scale of the embeddings is of
        no interest: use `barlow_twins`.

    Reference:
      Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for
      Self-Supervised Learning", ICLR 2022.

    Example:
      >>> x = jnp.array([[0.5, 2.0], [-0.5, 2.0], [0.0, 2.0]])
      >>> jaxloss.variance_hinge(x)
      Array([0.5, 1. ], dtype=float32)
    """
    name = "variance_hinge"
    x, valid = _pairs.examples(name, where, embeddings=embeddings)
    like = jnp.zeros((*x.shape[:-2], x.shape[-1]), x.dtype)
    target = _checks.parameter(name, like, target=target)
    if x.shape[-2] == 0:
        return like
    degrees = _degrees_of_freedom(valid, x)
    std = _length(x, valid) / jnp.sqrt(jnp.maximum(degrees, 1))
    return jnp.where(degrees > 0, jax.nn.relu(target - std), 0)


@_whole_batch.require("embeddings", _whole_batch.BY_JIT)
@_jit.kernel()
def covariance_penalty(
    embeddings: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    r"""Squared covariances of each component with the others, as in VICReg.

    Also called: covariance_loss, VICReg covariance term, decorrelation loss.

    .. math::
       \ell_i = \sum_{j \ne i} \left(\frac{1}{n - 1} \sum_k
       (x_{ki} - \bar x_i)(x_{kj} - \bar x_j)\right)^2

    Args:
      embeddings: Floating array `(..., batch, components)`, not normalised; finite in
        float32 up to deviations of about 1e9, whose fourth power is in the loss.
      where: Boolean mask `(..., batch)`, default all true.  A masked example, such as
        padding, does not count.

    Returns:
      Per-component losses >= 0 `(..., components)`, in the fourth power of the unit of
      the embeddings; 0 if there is one component, or one example or none.  Their
      `jaxloss.mean` is the covariance term of VICReg.  A covariance has an error of a
      few eps of the product of the two standard deviations.

    Raises:
      TypeError: If `embeddings` are not floating, or `where` not boolean.
      ValueError: If `embeddings` have fewer than two axes, or `where` does not fit; or
        if `train.value_and_grad` has split the batch, because this loss compares its
        examples.

    Gradient:
      For the sum of the losses, `4 / (n - 1)` times the sum over the other components j
      of `Cov_ij (x_j - mean(x_j))` with respect to component i.  Not convex.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: no
      convex: no
      when: Components should not repeat one another, beside a `variance_hinge` that
        keeps their scale.
      not when: Nothing keeps the scale, which is then driven to 0: use `barlow_twins`,
        which does not depend on it.

    Reference:
      Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for
      Self-Supervised Learning", ICLR 2022.

    Example:
      >>> x = jnp.array([[1.0, 2.0, 0.0], [-1.0, -2.0, 0.0]])
      >>> jaxloss.covariance_penalty(x)
      Array([16., 16.,  0.], dtype=float32)
    """
    name = "covariance_penalty"
    x, valid = _pairs.examples(name, where, embeddings=embeddings)
    if x.shape[-2] == 0:
        return jnp.zeros((*x.shape[:-2], x.shape[-1]), x.dtype)
    degrees = jnp.maximum(_degrees_of_freedom(valid, x), 1)
    products = _products(_deviations(x, valid))
    return _total_of_others(products / degrees[..., None])


# --- statistics over a batch ---------------------------------------------------------


def _degrees_of_freedom(valid: jax.Array, like: jax.Array) -> jax.Array:
    """One less than the number of examples, `(..., 1)`."""
    return jnp.sum(valid, axis=-1, keepdims=True, dtype=like.dtype) - 1


def _deviations(x: jax.Array, valid: jax.Array) -> jax.Array:
    """The deviations from the mean of each component, `(..., components, batch)`.

    They are 0 for a masked example, and for a component that does not vary.
    """
    # Of equal numbers the mean may be rounded to another number: of their distances
    # from one of them it is 0.
    one = jnp.argmax(valid, axis=-1, keepdims=True)[..., None]
    one = lax.stop_gradient(jnp.take_along_axis(x, one, axis=-2))
    apart = jnp.where(valid[..., None], x - one, 0)
    count = jnp.sum(valid, axis=-1, dtype=x.dtype)[..., None, None]
    mean = jnp.sum(apart, axis=-2, keepdims=True) / jnp.maximum(count, 1)
    centred = jnp.where(valid[..., None], apart - mean, 0)
    return jnp.swapaxes(centred, -1, -2)


@jax.custom_jvp
def _length(x: jax.Array, valid: jax.Array) -> jax.Array:
    """The length of the deviations of each component."""
    return stable.norm(_deviations(x, valid))


@_length.defjvp
def _(primals, tangents):
    # The direction has mean 0, so that of the tangents does not matter.  Autodiff would
    # subtract it, and read the batch once more.
    (x, valid), (t, _) = primals, tangents
    direction = stable.unit(_deviations(x, valid))
    return _length(x, valid), jnp.sum(direction * jnp.swapaxes(t, -1, -2), axis=-1)


@jax.custom_jvp
def _products(x: jax.Array) -> jax.Array:
    """The inner product of each row with each."""
    return _pairs.cosines(x, x)


@_products.defjvp
def _(primals, tangents):
    # The matrix is symmetric, so its derivative is one matmul, where autodiff has two.
    (x,), (t,) = primals, tangents
    half = _pairs.cosines(t, x)
    return _products(x), half + jnp.swapaxes(half, -1, -2)


def _total_of_others(matrix: jax.Array) -> jax.Array:
    """The sum of squares of each row, without the diagonal."""
    # Left out before the square, whose slope could be infinite there.
    others = jnp.where(_pairs.diagonal(matrix.shape), 0, matrix)
    return jnp.sum(jnp.square(others), axis=-1)
