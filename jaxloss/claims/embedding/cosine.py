"""What is claimed of every loss of `jaxloss.losses.embedding.cosine`."""

import numpy as np

import jaxloss
from jaxloss.claims.common import big, exact_rows, refused, tiny, vectors
from jaxloss.claims.embedding.tuples import cosine, length, unit
from jaxloss.testing import LossSpec
from jaxloss.testing.exact import mp


def turn(a, b, factor):
    """The slopes of the cosine times a factor; 0 at a zero vector."""
    c, u, v = cosine(a, b), unit(a), unit(b)
    slope = lambda x, u, v: [
        factor * (t - c * s) / (length(x) or mp.inf) for s, t in zip(u, v, strict=True)
    ]
    return slope(a, u, v), slope(b, v, u)


def directions(dtype):
    """Zero, identical, opposite and orthogonal vectors, long and short."""
    z, e = np.zeros((1, 4)), np.eye(4)[:1]
    x = np.array([[1.0, 2.0, -3.0, 0.5]])
    y = np.array([[2.0, -1.0, 0.25, 0.0]])
    # The second derivative, of size 1 / low^2, is still a number.
    top, low = big(dtype) / 4, 16 * np.sqrt(tiny(dtype))
    pairs = [(z, z), (z, x), (x, z), (x, x), (x, -x), (x, y), (e, x)]
    return [*pairs, (top * e, e), (e, top * x / 3), (low * e, x), (x, low * y)]


def of_directions(fn, value, factor, **claims):
    name, x = fn.__name__, np.ones((3, 4))
    return LossSpec(
        name=name,
        fn=fn,
        sample=vectors(2),
        event_ndim=1,
        differentiable=(0, 1),
        reference=exact_rows(1, 1)(value),
        gradient=exact_rows(1, 1)(lambda a, b: turn(a, b, factor)),
        extremes=directions,
        bad_calls=(
            refused(name, "targets", x, np.ones((1, 4))),
            refused(name, "targets", x, np.ones(4)),
            refused(name, "predictions", x.astype(int), x, error=TypeError),
            refused(name, "axis", x, x, axis=2),
            refused(name, "axis", x, x, axis="last", error=TypeError),
            refused(name, "axis", np.float64(1), np.float64(1)),
        ),
        **claims,
    )


SPECS = [
    of_directions(jaxloss.cosine_similarity, cosine, 1),
    of_directions(
        jaxloss.cosine_distance,
        lambda a, b: 1 - cosine(a, b),
        -1,
        minimiser=lambda b: b,
    ),
]
