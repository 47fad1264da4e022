"""Claims of the losses of the angle between two vectors."""

import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.embedding.formulas import cosine, cosine_slopes
from jaxloss.claims.embedding.in_batch import HALF_TURN, X, at_angle, lengths
from jaxloss.testing import LossSpec, Symmetry
from jaxloss.testing.accuracy import Case
from jaxloss.testing.claim import Claim, Line

# --- laws ----------------------------------------------------------------------------


def directions(dtype):
    """Zero, identical, opposite and orthogonal vectors, long and short."""
    z, e = np.zeros((1, 4)), np.eye(4)[:1]
    x = np.array([[1.0, 2.0, -3.0, 0.5]])
    y = np.array([[2.0, -1.0, 0.25, 0.0]])
    # The second derivative, of size 1 / low^2, is still a number.
    top, low = common.big(dtype) / 4, 16 * np.sqrt(common.tiny(dtype))
    pairs = [(z, z), (z, x), (x, z), (x, x), (x, -x), (x, y), (e, x)]
    return [*pairs, (top * e, e), (e, top * x / 3), (low * e, x), (x, low * y)]


# What no cosine sees.
SYMMETRIES = (
    lengths(0, 1),
    common.swap(),
    common.flip(0, 1),
    common.permutation(0, 1),
)


def of_directions(fn, value, factor, opposite, **claims):
    """`opposite` is the loss of opposite vectors, from that of the pair."""
    name, x = fn.__name__, np.ones((3, 4))
    refused = lambda *args, **kw: common.refused(name, *args, **kw)
    return LossSpec(
        name=name,
        fn=fn,
        sample=common.vectors(2),
        event_ndim=1,
        differentiable=(0, 1),
        reference=common.exact_rows(1, 1)(value),
        gradient=common.exact_rows(1, 1)(lambda a, b: cosine_slopes(a, b, factor)),
        symmetries=(
            *SYMMETRIES,
            Symmetry("an opposite vector", lambda rng, a, b: (-a, b), opposite),
        ),
        extremes=directions,
        bad_calls=(
            refused("targets", x, np.ones((1, 4))),
            refused("targets", x, np.ones(4)),
            refused("predictions", x.astype(int), x, error=TypeError),
            refused("axis", x, x, axis=2),
            refused("axis", x, x, axis="last", error=TypeError),
            refused("axis", np.float64(1), np.float64(1)),
        ),
        **claims,
    )


# --- accuracy ------------------------------------------------------------------------


def vectors(scale=1.0):
    """Ordinary, nearly parallel, nearly opposite, nearly orthogonal, lopsided pairs."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    b[1] = 2 * a[1] + 2**-9 * b[1]
    b[2] = -a[2] + 2**-9 * b[2]
    b[3] = np.cross(a[3], b[3]) + 2**-9 * a[3]
    a[4], b[5] = [3, 2**-9, 0], [2**-9, 0, 5]
    return scale * a, scale * b


def hard_vectors():
    """Each nearly parallel and opposite: one component dominates in both, or in one;
    all are of one size, and differ in all or in one; both dominated, by different ones.
    """
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(2, 9, 4))
    a, b = 2**-12 * noise
    sign = np.array([1, -1] * 4 + [1])
    a[:4, 0], b[:2, 0], b[2:4] = 1.1, 1.7 * sign[:2], noise[1, 2:4]
    a[4:8] = np.sign(noise[0, 4:8])
    b[4:6] = 0.3 * sign[4:6, None] * a[4:6] * (1 + 2**-12 * noise[1, 4:6])
    b[6:8] = sign[6:8, None] * a[6:8]
    b[6:8, 1] *= 1 + 2**-12
    a[8, 0], b[8, 1] = 1.1, 1.7
    return a, b


def case(name, columns, **claims):
    return Case(
        name=name,
        columns=columns,
        rowwise=True,
        conditioned=(True, True, True),
        bounds=(2, 3, 4),
        **claims,
    )


def cases(*places):
    """In an argument, at a scale, for each of the places; and of hard pairs."""
    for i, scale in places:
        name = f"in argument {i} at scale {scale}"
        yield case(name, vectors(scale), argument=i, halves=scale == 1)
    yield case("of hard pairs", hard_vectors())


# --- claims --------------------------------------------------------------------------

LINE = Line("angle between the two", HALF_TURN, lambda x, _: (at_angle(x), X))

CLAIMS = [
    Claim(
        fn=jaxloss.cosine_similarity,
        domains=domains.RESIDUAL,
        settings=(
            of_directions(jaxloss.cosine_similarity, cosine, 1, lambda loss: -loss),
        ),
        accuracy=tuple(cases((0, 1.0), (1, 1e-15))),
        line=LINE,
    ),
    Claim(
        fn=jaxloss.cosine_distance,
        domains=domains.RESIDUAL,
        settings=(
            of_directions(
                jaxloss.cosine_distance,
                lambda a, b: 1 - cosine(a, b),
                -1,
                lambda loss: 2 - loss,
                minimiser=lambda b: b,
            ),
        ),
        accuracy=tuple(cases((0, 1.0), (1, 1.0), (0, 1e15))),
        line=LINE,
    ),
]
