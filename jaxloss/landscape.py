"""The loss around and between parameters: lines, planes, curvature.  Arrays come out.

`jaxloss.plot.plot_landscape` draws a plane.  Points are evaluated one after the other,
or `batch_size` at a time, by one compiled program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from jaxloss import _checks

Loss = Callable[[Any], jax.Array]
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
    """`(count,)`: to each of the values, an eigenvalue is as near as this, up to the
    rounding of the products."""
    vectors: jax.Array
    """`(count, parameters)`, of length 1; parameters in the order of
    `jax.flatten_util.ravel_pytree`."""


def line(
    loss: Loss,
    a: Any,
    b: Any,
    *,
    steps: ArrayLike | None = None,
    batch_size: int | None = None,
) -> Line:
    r"""The loss along the straight line through two sets of parameters.

    .. math:: t \mapsto \ell\left((1 - t)\, a + t\, b\right)

    From initial to trained parameters it shows whether training met an obstacle,
    between two trained ones whether they share a valley.

    Args:
      loss: A function from parameters to a scalar, such as the mean over a data set.
      a: Pytree of floating arrays, the parameters at t = 0.
      b: The same structure, shapes and dtypes; at t = 1.
      steps: The numbers t, shape `(n,)`; by default 61 from -1/4 to 5/4.
      batch_size: How many points at a time; by default one.

    Returns:
      A `Line`: the steps and the losses.

    Raises:
      TypeError: If a leaf is not floating.
      ValueError: If the trees differ, `steps` is not one axis, or the loss is not one
        number.

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
    _floating_leaves(name, a=a)
    _alike(name, a, b)
    _scalar(name, loss, a)
    steps = _steps(name, jnp.linspace(-0.25, 1.25, 61) if steps is None else steps)
    between = lambda x, y, t: ((1 - t) * _wide(x) + t * _wide(y)).astype(x.dtype)
    at = lambda t: loss(jax.tree.map(lambda x, y: between(x, y, t), a, b))
    return Line(steps, _mapped(at, steps, batch_size))


def plane(
    loss: Loss,
    params: Any,
    key: jax.Array,
    *,
    normalization: str | None = "filter",
    steps: ArrayLike | None = None,
    batch_size: int | None = None,
) -> Plane:
    r"""The loss in a random plane through some parameters.

    .. math:: (s, t) \mapsto \ell\left(\theta + s\, d_1 + t\, d_2\right)

    A network of rectified units computes the same if a layer is doubled and the next
    one halved, but is then twice and half as sensitive to its weights.  So directions
    are compared in units of the weights: with `"filter"`, those into each unit of a
    random direction get the length of those of the parameters.

    Args:
      loss: A function from parameters to a scalar.
      params: Pytree of floating arrays, whose last axis is that of the units (dense
        kernels `(in, out)`, convolutions `(..., in, out)`).
      key: Random key of the two directions.
      normalization: `"filter"`; `"layer"`, the length of whole leaves; with either,
        leaves of fewer than two axes (biases, scales) do not move.  `None` leaves
        normal random numbers as they are.
      steps: The numbers s and t, shape `(n,)`; by default 41 from -1 to 1.
      batch_size: How many points at a time; by default one.

    Returns:
      A `Plane`: the steps, `(n, n)` losses, and the two directions.

    Raises:
      TypeError: If a leaf is not floating.
      ValueError: If `normalization` is unknown, `steps` is not one axis, or the loss
        is not one number.

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
    _floating_leaves(name, params=params)
    _scalar(name, loss, params)
    if normalization not in _NORMALIZATIONS:
        expected = ", ".join(map(repr, _NORMALIZATIONS))
        _checks.fail(name, "normalization", repr(normalization), f"one of {expected}")
    steps = _steps(name, jnp.linspace(-1, 1, 41) if steps is None else steps)
    first, second = (direction(params, k, normalization) for k in jax.random.split(key))

    def at(place: jax.Array) -> jax.Array:
        t, s = place
        move = lambda x, d, e: (_wide(x) + s * _wide(d) + t * _wide(e)).astype(x.dtype)
        return loss(jax.tree.map(move, params, first, second))

    places = jnp.stack(jnp.meshgrid(steps, steps, indexing="ij"), axis=-1)
    losses = _mapped(at, places.reshape(-1, 2), batch_size)
    return Plane(steps, losses.reshape(len(steps), -1), (first, second))


def hessian_eigenvalues(
    loss: Loss,
    params: Any,
    key: jax.Array,
    *,
    count: int = 1,
    iterations: int = 40,
) -> Spectrum:
    r"""The largest eigenvalues of the Hessian: how sharp a minimum is.

    .. math:: H v = \lambda v, \qquad H = \nabla^2 \ell(\theta)

    By the method of Lanczos on products with the Hessian, one gradient and its
    directional derivative each; the Hessian itself is not formed.  The basis, of
    `iterations` times the size of the parameters, is kept orthogonal.

    Args:
      loss: A function from parameters to a scalar, twice differentiable.
      params: Pytree of floating arrays.
      key: Random key of the first direction.
      count: How many eigenvalues.
      iterations: Products with the Hessian, at least `count`; at most as many as there
        are parameters are made.  The outer eigenvalues are found first: see `errors`.

    Returns:
      A `Spectrum`: the values, largest first, how sure they are, and eigenvectors.

    Raises:
      TypeError: If a leaf is not floating.
      ValueError: If `count` is less than 1 or more than there are parameters or
        iterations, or the loss is not one number.

    Reference:
      Lanczos, "An Iteration Method for the Solution of the Eigenvalue Problem of Linear
      Differential and Integral Operators", 1950; Ghorbani et al., "An Investigation
      into Neural Net Optimization via Hessian Eigenvalue Density", ICML 2019.

    Example:
      >>> from jaxloss import landscape
      >>> loss = lambda w: 3 * w[0] ** 2 + w[1] ** 2 - w[2] ** 2
      >>> point, key = jnp.ones(3), jax.random.key(0)
      >>> landscape.hessian_eigenvalues(loss, point, key, count=2).values.round(3)
      Array([6., 2.], dtype=float32)
    """
    name = "hessian_eigenvalues"
    _floating_leaves(name, params=params)
    _scalar(name, loss, params)
    flat, restored = ravel_pytree(jax.tree.map(_wide, params))
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
    return Spectrum(values, jnp.abs(side[-1] * mixes[:, -1]), mixes @ basis)


def direction(params: Any, key: jax.Array, normalization: str | None) -> Any:
    """A random direction in the units of the parameters; see `plane`."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    moves = [
        _normalized(
            _wide(x), jax.random.normal(k, x.shape, _wide(x).dtype), normalization
        )
        for k, x in zip(keys, leaves, strict=True)
    ]
    return tree.unflatten(moves)


# --- directions ----------------------------------------------------------------------


def _normalized(x: jax.Array, d: jax.Array, normalization: str | None) -> jax.Array:
    """`d` with the length of `x`, unit by unit or as a whole."""
    if normalization is None:
        return d
    if x.ndim < 2:
        return jnp.zeros_like(d)
    axes = tuple(range(x.ndim - 1)) if normalization == "filter" else None
    length = lambda v: jnp.sqrt(jnp.sum(jnp.square(v), axis=axes, keepdims=True))
    return d * (length(x) / length(d))


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
            v = v - jnp.matmul(jnp.matmul(basis, v), basis)
        return v

    def step(basis: jax.Array, i: jax.Array) -> tuple[jax.Array, tuple]:
        v = basis[i]
        w = product(v)
        middle, scale = jnp.vdot(v, w), jnp.linalg.norm(w)
        w = apart(w, basis)
        side = jnp.linalg.norm(w)
        # Nothing new: go on anywhere at a right angle, uncoupled from what there is.
        new = side > 16 * jnp.finfo(like.dtype).eps * scale
        other = apart(draw(i + 1), basis)
        following = jnp.where(new, w / side, other / jnp.linalg.norm(other))
        basis = basis.at[i + 1].set(following, mode="drop")
        return basis, (middle, jnp.where(new, side, 0))

    first = draw(0)
    basis = jnp.zeros((size, like.size), like.dtype)
    basis = basis.at[0].set(first / jnp.linalg.norm(first))
    basis, (middle, side) = lax.scan(step, basis, jnp.arange(size))
    return middle, side, basis


def _mapped(fn: Callable, xs: jax.Array, batch_size: int | None) -> jax.Array:
    return jax.jit(lambda xs: lax.map(fn, xs, batch_size=batch_size))(xs)


# --- arguments -----------------------------------------------------------------------


def _wide(x: jax.Array) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _floating_leaves(name: str, **tree: Any) -> None:
    ((argument, params),) = tree.items()
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        _checks.fail(name, argument, "no arrays", "a pytree of parameters")
    paths = {argument + jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    _checks.floating(name, **paths)


def _alike(name: str, a: Any, b: Any) -> None:
    if jax.tree.structure(a) != jax.tree.structure(b):
        _checks.fail(name, "b", "another structure", f"{jax.tree.structure(a)}")
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        x, y = jnp.asarray(x), jnp.asarray(y)
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            has, expected = f"{y.dtype}{y.shape}", f"{x.dtype}{x.shape}, as in `a`"
            _checks.fail(name, "b" + jax.tree_util.keystr(path), has, expected)


def _scalar(name: str, loss: Loss, params: Any) -> None:
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
