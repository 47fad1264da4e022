"""The loss around and between parameters: lines, planes, curvature.

The functions return arrays; `jaxloss.plot.plot_landscape` draws a plane.  One compiled
program evaluates the points one after the other, or `batch_size` at a time.
Half-precision parameters are moved in float32 and rounded before the loss.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from jaxloss import _checks, stable

_Loss = Callable[[Any], jax.Array]
_NORMALIZATIONS = ("filter", "layer", None)


class Line(NamedTuple):
    """Losses along a line."""

    steps: jax.Array
    """`(n,)`: 0 at the first end, 1 at the second."""
    losses: jax.Array
    """`(n,)`."""


class Plane(NamedTuple):
    """Losses in a plane."""

    steps: jax.Array
    """`(n,)`: 0 is at the parameters."""
    losses: jax.Array
    """`(n, n)`: at `[i, j]`, `steps[i]` along the second and `steps[j]` along the first
    direction, as an image has rows and columns."""
    directions: tuple[Any, Any]
    """Two pytrees like the parameters."""


class Spectrum(NamedTuple):
    """The largest eigenvalues of a Hessian."""

    values: jax.Array
    """`(count,)`, the largest first."""
    errors: jax.Array
    """`(count,)`: some eigenvalue is at least as near to each value as this, up to the
    rounding of the products."""
    vectors: jax.Array
    """`(count, parameters)`, of length 1; parameters in the order of
    `jax.flatten_util.ravel_pytree`."""


def line(
    loss: _Loss,
    a: Any,
    b: Any,
    *,
    steps: ArrayLike | None = None,
    batch_size: int | None = None,
) -> Line:
    r"""The loss along the straight line through two sets of parameters.

    .. math:: t \mapsto \ell\left((1 - t)\, a + t\, b\right)

    From initial to trained parameters, it shows whether there is a barrier on the way;
    between two trained ones, whether they share a valley.

    Args:
      loss: A function from parameters to a scalar, such as the mean over a data set.
      a: Pytree of floating arrays, the parameters at t = 0.
      b: The same structure, shapes and dtypes; at t = 1.
      steps: The numbers t, shape `(n,)`; by default 61 numbers from -1/4 to 5/4.
      batch_size: How many points are evaluated at a time, which takes their memory; by
        default one.

    Returns:
      A `Line`: the steps and the losses.  At t = 0 and t = 1 the parameters are exactly
      `a` and `b`.

    Raises:
      TypeError: If a leaf or `steps` is not floating, or `batch_size` not an integer.
      ValueError: If the trees differ or are empty, `steps` is not one axis, the loss is
        not one number, or `batch_size` is less than 1.

    Reference:
      Goodfellow et al., "Qualitatively Characterizing Neural Network Optimization
      Problems", ICLR 2015.

    Example:
      >>> from jaxloss import landscape
      >>> loss = lambda w: jnp.sum(jnp.square(w))
      >>> landscape.line(loss, jnp.zeros(2), jnp.ones(2), steps=jnp.arange(3.0)).losses
      Array([0., 2., 8.], dtype=float32)
    """
    name = "line"
    a, b = _arrays(name, a=a), _arrays(name, b=b)
    _alike(name, a, b)
    _scalar(name, loss, a)
    # Not linspace, which rounds 0 and 1 to neighbours of them.
    steps = _steps(name, (jnp.arange(61) - 10) / 40 if steps is None else steps)

    def at(t: jax.Array, ends: tuple[Any, Any]) -> jax.Array:
        between = lambda x, y: _times(1 - t, x) + _times(t, y)
        return loss(jax.tree.map(lambda x, y: between(x, y).astype(x.dtype), *ends))

    return Line(steps, _mapped(name, at, steps, (a, b), batch_size))


def plane(
    loss: _Loss,
    params: Any,
    key: jax.Array,
    *,
    normalization: str | None = "filter",
    steps: ArrayLike | None = None,
    batch_size: int | None = None,
) -> Plane:
    r"""The loss in a random plane through some parameters.

    .. math:: (s, t) \mapsto \ell\left(\theta + s\, d_1 + t\, d_2\right)

    A ReLU network computes the same function if the weights of one layer are doubled
    and those of the next one halved, but a step of a given length then has another
    effect.  So `normalization` scales the random directions d to the weights.

    Args:
      loss: A function from parameters to a scalar.
      params: Pytree of floating arrays, whose last axis is that of the units (dense
        kernels `(in, out)`, convolutions `(..., in, out)`).
      key: Random key for the two directions.
      normalization: `"filter"` scales the part of a direction that leads into one unit
        to the length of the weights of that unit; `"layer"` scales whole leaves.  With
        either, leaves of fewer than two axes (biases, scales) do not move.  `None`
        leaves the normal random numbers unscaled.
      steps: The numbers s and t, shape `(n,)`; by default 41 numbers from -1 to 1.
      batch_size: How many points are evaluated at a time, which takes their memory; by
        default one.

    Returns:
      A `Plane`: the steps, `(n, n)` losses, and the two directions.

    Raises:
      TypeError: If a leaf or `steps` is not floating, or `batch_size` not an integer.
      ValueError: If there are no leaves, `normalization` is unknown, `steps` is not one
        axis, the loss is not one number, or `batch_size` is less than 1.

    Reference:
      Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018.

    Example:
      >>> from jaxloss import landscape
      >>> loss = lambda w: jnp.sum(jnp.square(w))
      >>> found = landscape.plane(loss, jnp.eye(2), jax.random.key(0))
      >>> found.losses.shape, found.losses[20, 20]
      ((41, 41), Array(2., dtype=float32))
    """
    name = "plane"
    params = _arrays(name, params=params)
    _scalar(name, loss, params)
    _checks.one_of(name, _NORMALIZATIONS, normalization=normalization)
    steps = _steps(name, jnp.linspace(-1, 1, 41) if steps is None else steps)
    along = [_direction(params, k, normalization) for k in jax.random.split(key)]

    def at(place: jax.Array, trees: tuple[Any, Any, Any]) -> jax.Array:
        t, s = place
        moved = lambda x, d, e: _wide(x) + _times(s, d) + _times(t, e)
        return loss(jax.tree.map(lambda x, *ds: moved(x, *ds).astype(x.dtype), *trees))

    places = jnp.stack(jnp.meshgrid(steps, steps, indexing="ij"), axis=-1)
    places = places.reshape(-1, 2)
    losses = _mapped(name, at, places, (params, *along), batch_size)
    return Plane(steps, losses.reshape(len(steps), -1), (along[0], along[1]))


def hessian_eigenvalues(
    loss: _Loss,
    params: Any,
    key: jax.Array,
    *,
    count: int = 1,
    iterations: int = 40,
) -> Spectrum:
    r"""The largest eigenvalues of the Hessian: how sharp a minimum is.

    .. math:: H v = \lambda v, \qquad H = \nabla^2 \ell(\theta)

    The Lanczos method needs only products with the Hessian, each of which is the
    directional derivative of a gradient; the Hessian itself is not computed.  The
    basis, `iterations` times the size of the parameters, is kept orthogonal.

    Args:
      loss: A function from parameters to a scalar, twice differentiable.
      params: Pytree of floating arrays; half precision is widened to float32, also for
        the loss.
      key: Random key for the first direction.
      count: How many eigenvalues.
      iterations: Number of products with the Hessian, at least `count`; never more than
        there are parameters.  The outermost eigenvalues converge first: see `errors`.

    Returns:
      A `Spectrum`: the largest eigenvalues, largest first, their error bounds, and
      eigenvectors.  If an eigenvalue occurs several times, its copies are found last,
      after all distinct ones.

    Raises:
      TypeError: If a leaf is not floating, or a number not a Python integer.
      ValueError: If there are no leaves, `count` is less than 1 or more than there are
        parameters or iterations, or the loss is not one number.

    Reference:
      Lanczos, "An Iteration Method for the Solution of the Eigenvalue Problem of Linear
      Differential and Integral Operators", 1950; Ghorbani et al., "An Investigation
      into Neural Net Optimization via Hessian Eigenvalue Density", ICML 2019.

    Example:
      >>> from jaxloss import landscape
      >>> loss = lambda w: 3 * w[0] ** 2 + w[1] ** 2 - w[2] ** 2
      >>> point, key = jnp.ones(3), jax.random.key(0)
      >>> found = landscape.hessian_eigenvalues(loss, point, key, count=2)
      >>> np.asarray(found.values).round(3)
      array([6., 2.], dtype=float32)
    """
    name = "hessian_eigenvalues"
    params = jax.tree.map(_wide, _arrays(name, params=params))
    _scalar(name, loss, params)
    flat, restored = ravel_pytree(params)
    _checks.positive_integer(name, count=count)
    _checks.positive_integer(name, iterations=iterations)
    size = min(iterations, flat.size)
    if count > size:
        expected = f"at most {size} ({iterations} iterations, {flat.size} parameters)"
        _checks.fail(name, "count", str(count), expected)
    slope = jax.grad(lambda x: loss(restored(x)))
    product = lambda v: jax.jvp(slope, (flat,), (v,))[1]
    middle, side, basis = _tridiagonal(product, flat, key, size)
    matrix = jnp.diag(middle) + jnp.diag(side[:-1], 1) + jnp.diag(side[:-1], -1)
    values, mixes = jnp.linalg.eigh(matrix)
    values, mixes = values[::-1][:count], mixes.T[::-1][:count]
    return Spectrum(values, jnp.abs(side[-1] * mixes[:, -1]), _matmul(mixes, basis))


# --- directions ----------------------------------------------------------------------


def _direction(params: Any, key: jax.Array, normalization: str | None) -> Any:
    """A random direction in the units of the parameters."""
    leaves, tree = jax.tree.flatten(jax.tree.map(_wide, params))
    keys = jax.random.split(key, len(leaves))
    draw = lambda x, k: jax.random.normal(k, x.shape, x.dtype)
    pairs = zip(leaves, keys, strict=True)
    return tree.unflatten([_normalized(x, draw(x, k), normalization) for x, k in pairs])


def _normalized(x: jax.Array, d: jax.Array, normalization: str | None) -> jax.Array:
    """`d` with the length of `x`, unit by unit or as a whole."""
    if normalization is None:
        return d
    if x.ndim < 2:
        return jnp.zeros_like(d)
    columns = x.shape[-1] if normalization == "filter" else 1
    length = lambda v: stable.norm(v.reshape(-1, columns), axis=0)
    scale = stable.safe_divide(length(x), length(d))
    return (d.reshape(-1, columns) * scale[None]).reshape(d.shape)


def _times(factor: jax.Array, x: jax.Array) -> jax.Array:
    """The product in the dtype of `x`, but at least in float32."""
    x = _wide(x)
    return factor.astype(x.dtype) * x


# --- Lanczos -------------------------------------------------------------------------


def _tridiagonal(
    product: Callable[[jax.Array], jax.Array],
    like: jax.Array,
    key: jax.Array,
    size: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Diagonal and off-diagonal `(size,)` of a matrix, and the basis it is in.

    The last entry off the diagonal is what leads out of the basis.
    """
    draw = lambda i: jax.random.normal(
        jax.random.fold_in(key, i), like.shape, like.dtype
    )

    def apart(v: jax.Array, basis: jax.Array) -> jax.Array:
        # Twice, or rounding lets eigenvalues in that were found before.
        for _ in range(2):
            v = v - _matmul(_matmul(basis, v), basis)
        return v

    def step(basis: jax.Array, i: jax.Array) -> tuple[jax.Array, tuple]:
        v = basis[i]
        w = product(v)
        middle, scale = jnp.sum(v * w), stable.norm(w)
        w = apart(w, basis)
        side = stable.norm(w)
        # Nothing new: go on anywhere at a right angle, uncoupled from what there is.
        new = side > 16 * jnp.finfo(like.dtype).eps * scale
        other = apart(draw(i + 1), basis)
        following = jnp.where(new, stable.unit(w), stable.unit(other))
        basis = basis.at[i + 1].set(following, mode="drop")
        return basis, (middle, jnp.where(new, side, 0))

    basis = jnp.zeros((size, like.size), like.dtype)
    basis = basis.at[0].set(stable.unit(draw(0)))
    basis, (middle, side) = lax.scan(step, basis, jnp.arange(size))
    return middle, side, basis


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    # By default a GPU keeps 10 bits of each factor and a TPU 8: not orthogonal.
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


# --- arguments -----------------------------------------------------------------------


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def _arrays(name: str, **tree: Any) -> Any:
    """The one tree given, with arrays for leaves: checked."""
    ((argument, params),) = tree.items()
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        _checks.fail(name, argument, "no arrays", "a pytree of parameters")
    paths = {argument + jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    _checks.floating(name, **paths)
    return jax.tree.map(jnp.asarray, params)


def _alike(name: str, a: Any, b: Any) -> None:
    if jax.tree.structure(a) != jax.tree.structure(b):
        _checks.fail(name, "b", "another structure", f"{jax.tree.structure(a)}")
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        has, expected = (f"shape {v.shape} and dtype {v.dtype}" for v in (y, x))
        if has != expected:
            place = "b" + jax.tree_util.keystr(path)
            _checks.fail(name, place, has, f"{expected}, as in `a`")


def _scalar(name: str, loss: _Loss, params: Any) -> None:
    found = jax.eval_shape(loss, params)
    shape = getattr(found, "shape", None)
    if shape != ():
        has = f"shape {shape}" if shape is not None else f"a {type(found).__name__}"
        _checks.fail(name, "loss", f"a result of {has}", "one number")


def _steps(name: str, steps: ArrayLike) -> jax.Array:
    (steps,) = _checks.floating(name, steps=steps)
    if steps.ndim != 1:
        _checks.fail(name, "steps", f"shape {steps.shape}", "shape (n,)")
    return steps


def _mapped(
    name: str, fn: Callable, xs: jax.Array, given: Any, batch_size: int | None
) -> jax.Array:
    """`fn(x, given)` of each of `xs`, by one program that is given the parameters.

    As constants of the program they would be compiled into it.
    """
    if batch_size is not None:
        _checks.positive_integer(name, batch_size=batch_size)
    each = lambda xs, given: lax.map(lambda x: fn(x, given), xs, batch_size=batch_size)
    return jax.jit(each)(xs, given)
