"""Claims of the losses that spread a batch over the sphere."""

import functools
import math

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.embedding.formulas import (
    cosine_slopes,
    dot,
    length,
    minus,
    turned,
    unit,
)
from jaxloss.claims.embedding.in_batch import (
    HALF_TURN,
    X,
    at_angle,
    at_angles,
    batch_of_four,
    case,
    edge_rows,
    four_rows,
    lengths,
)
from jaxloss.testing import LossSpec, Symmetry
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp


class OfExamples(LossSpec):
    """A loss of each example of a batch `(batch, components)`.

    One example of the laws is a batch, so they see one number of it: a mean, in which
    every example has a weight of its own, or a swap of two would not show.
    """

    def __call__(self, *args, **overrides):
        return weighted_mean(super().__call__(*args, **overrides), args[-1])


def weighted_mean(losses, where):
    """The mean of what is not masked, with the weights 1, 2, ..."""
    weights = jnp.arange(1, losses.shape[-1] + 1, dtype=losses.dtype)
    weights = jnp.where(where, jnp.broadcast_to(weights, losses.shape), 0)
    return jnp.sum(losses * weights, -1) / jnp.maximum(jnp.sum(weights, -1), 1)


# --- samples, edges, and what changes nothing ----------------------------------------


def batches(rng, shape):
    """Five rows; half of the batches have padding."""
    padded = rng.integers(2, size=(*shape, 1)) * rng.uniform(size=(*shape, 5)) > 0.7
    return rng.normal(size=(*shape, 5, 3)), ~padded


def edges(dtype):
    """Every kind of rows; all but two masked, all but one, and all."""
    rows = edge_rows(dtype)
    cases = [(r, [True] * 5) for r in rows]
    cases += [(r, [True, False, True, True, False]) for r in rows[1:]]
    cases += [(rows[4], [False, True, True, False, False])]  # two antipodes
    cases += [(rows[1], [i < n for i in range(5)]) for n in (0, 1, 2)]
    for r, where in cases:
        yield r[None], np.array([where])


def edges_without_duplicates(dtype):
    """A zero row; a near duplicate; long and short; masked as above.

    No two rows are equally near: which one is chosen is not said.
    """
    x, e = np.random.default_rng(1).normal(size=(5, 3)), np.eye(3)
    # The second derivative, of size 1 / low^2, is still a number.
    top, low = common.big(dtype) / 4, 64 * np.sqrt(common.tiny(dtype))
    almost = np.stack([e[0], e[0] + low * e[1], *x[2:]])
    zero = x * [[0], [1], [1], [1], [1]]
    opposite = np.stack([e[0], -3 * e[0], *x[2:]])
    cases = [(x, [True] * 5), (zero, [True] * 5), (almost, [True] * 5)]
    cases += [(x * [[1], [top], [low], [1], [low]] / 3, [True] * 5)]
    cases += [(r, [i < n for i in range(5)]) for r in (x, opposite) for n in (0, 1, 2)]
    for r, where in cases:
        yield r[None], np.array([where])


def rotated(rng, x, *rest):
    """All rows of a batch by the same rotation or reflection."""
    turn, _ = np.linalg.qr(rng.normal(size=(x.shape[-1],) * 2))
    return x @ turn, *rest


SYMMETRIES = (lengths(0), common.flip(0), Symmetry("a rotation", rotated))


# --- formulas ------------------------------------------------------------------------


def kept(where):
    return [i for i in range(len(where)) if where[i]]


def potentials(u, where, t):
    """`exp(-t |u_i - u_j|^2)` of the ordered pairs."""
    rows = kept(where)
    square = lambda i, j: dot(minus(u[i], u[j]), minus(u[i], u[j]))
    return {(i, j): mp.exp(-t * square(i, j)) for i in rows for j in rows if i != j}


def log_mean(u, where, t):
    found = potentials(u, where, t)
    return mp.log(mp.fsum(found.values()) / len(found)) if found else mp.mpf(0)


def uniformity(x, where, t):
    return log_mean([unit(row) for row in x], where, t)


def weights_of(x, where, t):
    """`4 t p`, the derivative in each cosine: it counts twice in two ordered pairs."""
    found, rows = potentials([unit(row) for row in x], where, t), range(len(x))
    total = mp.fsum(found.values()) or 1
    return [[4 * t * found.get((i, j), 0) / total for j in rows] for i in rows]


def uniformity_slopes(x, where, t):
    return turned(x, x, weights_of(x, where, t), 1)


def uniformity_pulls(x, where, t):
    """The sizes of what cancels in a gradient: distances from the mean, in shares."""
    u, sizes = [unit(row) for row in x], []
    columns = zip(*(u[i] for i in kept(where)), strict=True)
    mean = [mp.fsum(c) / len(c) for c in columns] or u[0]
    far = [length(minus(row, mean)) for row in u]
    weights = weights_of(x, where, t)
    for row, own, pair in zip(x, far, weights, strict=True):
        size = dot(pair, [own + other for other in far])
        sizes.append([size / (length(row) or mp.inf)] * len(row))
    return sizes


def nearest(u, where, i):
    """The distance of the nearest other row, and which that is; or nothing."""
    if not where[i]:
        return None
    found = [(length(minus(u[i], u[j])), j) for j in kept(where) if j != i]
    return min(found, default=None)


def neighbours(u, where):
    """Of each row with a neighbour: its share in the mean, the distance, and both."""
    total = sum(1 + i for i in kept(where))
    for i in range(len(u)):
        if found := nearest(u, where, i):
            yield mp.mpf(1 + i) / total, found[0], i, found[1]


def koleo(x, where):
    u = [unit(row) for row in x]
    return -mp.fsum(w * mp.log(d) for w, d, *_ in neighbours(u, where))


def koleo_slopes(x, where):
    """Of -log(2 - 2 c) / 2 in a cosine c: 1 / d^2."""
    slopes = [[mp.mpf(0)] * len(row) for row in x]
    for w, d, i, j in neighbours([unit(row) for row in x], where):
        for row, pull in zip((i, j), cosine_slopes(x[i], x[j], w / d**2), strict=True):
            slopes[row] = [s + p for s, p in zip(slopes[row], pull, strict=True)]
    return slopes


def koleo_pulls(x, where):
    """The sizes of what is projected across each row, and so cancels along it."""
    sizes = [mp.mpf(0)] * len(x)
    for w, d, i, j in neighbours([unit(row) for row in x], where):
        sizes[i], sizes[j] = sizes[i] + w / d, sizes[j] + w / d
    pairs = zip(sizes, x, strict=True)
    return [[size / (length(row) or mp.inf)] * len(row) for size, row in pairs]


# --- laws ----------------------------------------------------------------------------


def bad_calls(name):
    x = np.ones((3, 4))
    refused = functools.partial(common.refused, name)
    return (
        refused("embeddings", x.astype(int), error=TypeError),
        refused("embeddings", np.ones(3)),
        refused("where", x, where=np.ones((3, 3), bool)),
        refused("where", x, where=np.ones(3), error=TypeError),
    )


def bad_sharpness():
    x, refused = np.ones((3, 4)), functools.partial(common.refused, "uniformity")
    return (
        refused("t", x, t=0.0),
        refused("t", x, t=-2.0),
        refused("t", x, t=np.ones(2)),
        refused("t", x, t="sharp", error=TypeError),
    )


def of_a_batch(fn, value, gradient, **claims):
    lift = common.exact_rows(2, 1)
    claims = {"extremes": edges, "symmetries": SYMMETRIES} | claims
    return {
        "fn": fn,
        "sample": batches,
        "keywords": ("where",),
        "event_ndim": 2,
        "reference": lift(value),
        "gradient": lift(gradient),
        **claims,
    }


SPREAD = LossSpec(
    name="uniformity(t=2)",
    params={"t": 2.0},
    **of_a_batch(
        jaxloss.uniformity,
        uniformity,
        uniformity_slopes,
        gradient_cancels=common.exact_rows(2, 1)(uniformity_pulls),
        symmetries=(
            *SYMMETRIES,
            common.permutation(0, 1),
        ),
        bad_calls=(*bad_calls("uniformity"), *bad_sharpness()),
    ),
)
NEAREST = OfExamples(
    name="koleo",
    **of_a_batch(
        jaxloss.koleo,
        koleo,
        koleo_slopes,
        gradient_cancels=common.exact_rows(2, 1)(koleo_pulls),
        extremes=edges_without_duplicates,
        smooth=False,
        bad_calls=bad_calls("koleo"),
    ),
)


# --- accuracy ------------------------------------------------------------------------

# Of four rows of two components, of which the first is differentiated.  `units`, which
# are 1, are the lengths of the unit vectors, whose rounding belongs to the condition.


def batches_of_four():
    """Ordinary, of different lengths, in two clusters, collapsed, near each other,
    across, and on the axes; no two rows equally near; and a sharpness of each."""
    rng = np.random.default_rng(0)
    found = [
        (rng.normal(size=(4, 2)), 2.0),
        (rng.normal(size=(4, 2)) * [[300.0], [0.03], [1], [7]], 0.5),
        (at_angles(0, 3, 170, 185), 8.0),
        (at_angles(0, 1e-3, 3e-3, 4.5e-3), 2.0),
        (at_angles(20, 21, 23, 26), 30.0),
        (at_angles(10, 95, 185, 278), 16.0),
        (at_angles(0, 180, 1, 178) * [[3], [0.1], [2], [5]], 1.0),
    ]
    x = np.stack([rows.ravel() for rows, _ in found])
    return x[:, :2], x[:, 2:], np.ones((7, 4)), np.array([t for _, t in found])


def units_of_four(first, rest, units):
    rows = zip(four_rows(first, rest), units, strict=True)
    return [[s * v for v in unit(row)] for row, s in rows]


def uniformity_of_four(first, rest, units, t):
    return log_mean(units_of_four(first, rest, units), [True] * 4, t)


def koleo_of_four(first, rest, units):
    found = neighbours(units_of_four(first, rest, units), [True] * 4)
    return -mp.fsum(w * mp.log(d) for w, d, *_ in found)


def evaluate_uniformity(first, rest, units, t):
    return jaxloss.uniformity(batch_of_four(first, rest), t=t)


def evaluate_koleo(first, rest, units):
    losses = jaxloss.koleo(batch_of_four(first, rest))
    return weighted_mean(losses, jnp.ones(losses.shape, bool))


OF_FOUR = batches_of_four()
ACCURACY_OF_UNIFORMITY = tuple(
    case(name, evaluate_uniformity, uniformity_of_four, OF_FOUR, bounds, argument)
    for name, argument, bounds in (
        ("uniformity in embeddings", 0, (2, 1, 1)),
        ("uniformity in t", 3, (2, 2.5, 3)),
    )
)
# Three pulls of a row across the others cancel, which no argument shows.
BOUNDS_OF_KOLEO = (1, 6, 3)
ACCURACY_OF_KOLEO = case(
    "koleo", evaluate_koleo, koleo_of_four, OF_FOUR[:3], BOUNDS_OF_KOLEO
)


# --- claims --------------------------------------------------------------------------

ANGLE = "angle between the two of a batch"


def two(x, _):
    return (jnp.stack([at_angle(x), X]),)


CLAIMS = [
    Claim(
        fn=jaxloss.uniformity,
        domains={"embeddings": domains.REAL},
        settings=(SPREAD,),
        accuracy=ACCURACY_OF_UNIFORMITY,
        line=Line(ANGLE, HALF_TURN, two),
        drawn=tuple({"t": t} for t in (1.0, 2.0, 4.0)),
    ),
    Claim(
        fn=jaxloss.koleo,
        domains={"embeddings": domains.REAL},
        settings=(NEAREST,),
        accuracy=(ACCURACY_OF_KOLEO,),
        line=Line(ANGLE, (0.02, math.pi), two),
    ),
]
