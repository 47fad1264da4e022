"""Claims of the losses of sparse predictions."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import entmax15, fenchel_young, sparsemax
from jaxloss.claims import domains
from jaxloss.claims.classification.cross_entropy import (
    CLASS_LOGIT,
    OF_DISTRIBUTIONS,
    OF_IDS,
    bad_labels,
    distribution,
    distribution_edges,
    distributions,
    dot,
    id_edges,
)
from jaxloss.claims.common import (
    exact_rows,
    flip,
    logits_and_distributions,
    logits_and_ids,
    pair,
    permutation,
    refused,
    refused_pairs,
    root,
    scale,
    vector,
)
from jaxloss.testing import LossSpec, accuracy
from jaxloss.testing.accuracy import Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

# --- the definitions ---------------------------------------------------------------


def shifted(z):
    """Logits below their maximum, as sixty digits cannot hold both 1e300 and 1/3."""
    return [v - max(z) if v != -mp.inf else v for v in z]


def threshold(z, power):
    """The tau for which `max(0, z / power - tau) ** power` sums to 1: of the roots for
    the 1, 2, ... largest the one that is below these alone."""
    z = sorted((v / power for v in z), reverse=True)
    for k in range(1, len(z) + 1):
        mean = mp.fsum(z[:k]) / k
        room = mp.mpf(1) / k
        if power == 2:
            room = room - mp.fsum((v - mean) ** 2 for v in z[:k]) / k
            room = mp.sqrt(max(room, 0))
        tau = mean - room
        if z[k - 1] > tau and all(v <= tau for v in z[k:]):
            return tau
    raise AssertionError("no threshold")


def probabilities(z, power):
    """Those that maximise `<p, z> - Omega(p)`."""
    z = shifted(z)
    tau = threshold(z, power)
    return [max(0, v / power - tau) ** power for v in z]


def omega(p, power):
    """The negentropies: of Gini for power 1, of Tsallis with alpha = 3/2 for 2."""
    if power == 1:
        return (mp.fsum(v * v for v in p) - 1) / 2
    return mp.fsum(v * mp.sqrt(v) - v for v in p) * 4 / 3


def conjugate(z, power):
    """`max <p, z> - Omega(p)`, of logits below their maximum."""
    p = probabilities(z, power)
    return dot(p, shifted(z)) - omega(p, power)


def value(z, y, power):
    """`Omega*(z) + Omega(y) - <y, z>`, times the sum of y if that is not 1."""
    y = distribution(y, len(z))
    mass = mp.fsum(y)
    if mass == 0 or all(v == -mp.inf for v in z):
        return mp.mpf(0)
    q = [v / mass for v in y]
    return mass * (conjugate(z, power) + omega(q, power) - dot(q, shifted(z)))


def by_logits(z, y, power):
    if all(v == -mp.inf for v in z):
        return [mp.mpf(0)] * len(z)
    y, p = distribution(y, len(z)), probabilities(z, power)
    return [v * mp.fsum(y) - w for v, w in zip(p, y, strict=True)]


def by_labels(z, y, power):
    """By the product rule for `mass * loss(z, y / mass)`."""
    q = [v / mp.fsum(y) for v in y]
    slope = [v if power == 1 else 2 * mp.sqrt(v) for v in q]
    same = conjugate(z, power) + omega(q, power) - dot(q, slope)
    found = zip(slope, shifted(z), strict=True)
    return [0 if d == -mp.inf else same + v - d for v, d in found]


def hessian(z, y, power):
    n = len(z)
    if all(v == -mp.inf for v in z):
        return [[mp.mpf(0)] * n] * n
    mass = mp.fsum(distribution(y, n))
    s = [mp.sign(v) if power == 1 else mp.sqrt(v) for v in probabilities(z, power)]
    total = mp.fsum(s)
    other = lambda i: mp.fsum(v for j, v in enumerate(s) if j != i)
    return [
        [mass * s[i] * (other(i) if i == j else -s[j]) / total for j in range(n)]
        for i in range(n)
    ]


# --- sparsemax and entmax ----------------------------------------------------------


def near(dtype):
    """Four, three and two classes that share the probability, and nearly one."""
    return np.array(
        [
            [0.25, 0.0, -0.125, -0.25],
            [0.5, 0.25, 0.0, -1.5],
            [100.0, 99.5, -1.0, 98.0],
            [1.0, 2.0**-7, -1.0, -4.0],
        ]
    )


def id_corners(dtype):
    z = near(dtype)
    return [*id_edges(dtype), *((z, np.full(len(z), y)) for y in (0, 1, 3))]


def distribution_corners(dtype):
    """Those with a sum: without one there is no slope in the labels."""
    edges = [(z, y) for z, y in distribution_edges(dtype) if np.all(y.sum(-1) > 0)]
    z = near(dtype)
    return [*edges, (z, np.tile([0.5, 0.25, 0.25, 0.0], (len(z), 1)))]


def best(power):
    """The logits `power * y ** (1 / power)`, of which the prediction is the label."""

    def minimiser(y):
        y = np.eye(4)[y] if np.issubdtype(np.asarray(y).dtype, np.integer) else y
        return power * y ** (1 / power)

    return minimiser


def sparse(fn, power, kind):
    name = fn.__name__
    lift = exact_rows(1, kind)
    soft = lambda z, y: (by_logits(z, y, power), by_labels(z, y, power))
    hard = lambda z, y: by_logits(z, y, power)
    return LossSpec(
        name=f"{name}({'distributions' if kind else 'ids'})",
        fn=fn,
        sample=logits_and_distributions() if kind else logits_and_ids(),
        event_ndim=1,
        differentiable=(0, 1) if kind else 0,
        reference=lift(lambda z, y: value(z, y, power)),
        gradient=lift(soft if kind else hard),
        curvature=lift(lambda z, y: hessian(z, y, power)),
        smooth=False,
        convex=True,
        extremes=distribution_corners if kind else id_corners,
        minimiser=best(power),
        symmetries=OF_DISTRIBUTIONS if kind else OF_IDS,
        bad_calls=bad_labels(name),
    )


def logits(classes=4, count=12):
    """Ordinary rows, of which some share the probability; small probabilities; both far
    from the origin."""
    z = accuracy.rows(classes, count)
    z[1], z[2] = z[1] / 4, z[2] / 20
    other = np.arange(classes) > 0
    z[3], z[5] = (2.0**-18 - 1) * other, (2.0**-17 - 2) * other
    z[6], z[7] = 1e4 + 0.5 * z[1], 1e4 + z[4]
    return z


LOGITS, WEIGHTS = logits(), distributions(12)


def sparse_cases(power):
    case = lambda kind, y, **more: Case(
        name=f"of {kind}",
        columns=(LOGITS, y),
        first=lambda z, y: by_logits(z, y, power),
        second=lambda z, y: [row[i] for i, row in enumerate(hessian(z, y, power))],
        rowwise=True,
        **more,
    )
    yield case("ids", np.arange(12) % 4, fixed=(1,), bounds=(3, 3, 3))
    # Where prediction and label are near, the loss is a square of what is left.
    more = {"conditioned": (True, False, False), "halves": False}
    yield case("distributions", WEIGHTS, bounds=(2, 4, 3), **more)


# --- of any max function -----------------------------------------------------------


def half_square(s):
    """A max function that a shift of the scores does not shift: that of |p|^2 / 2."""
    return jnp.sum(jnp.square(s)) / 2


def vectors(rng, shape):
    return pair(rng, (*shape, 3))


def lengths(dtype):
    """Vectors of every size at which the square exists."""
    top = root(dtype)
    s = np.array([[0.0, 0.0, 0.0], [top, -top, 1.0], [1e-3, 2.0, -2.0]])
    return [(s, np.tile([0.0, 1.0, 0.0], (3, 1))), (s, s)]


@exact_rows(1, 1)
def half_square_loss(s, y):
    return dot(s, s) / 2 - dot(y, s)


@exact_rows(1, 1)
def half_square_slopes(s, y):
    return [a - b for a, b in zip(s, y, strict=True)], [-v for v in s]


@exact_rows(1)
def half_square_minimum(y):
    return -dot(y, y) / 2


def generic():
    name, ones = "fenchel_young", np.ones((3, 4))
    bad = (
        *refused_pairs(name, "scores", "targets"),
        refused(name, "targets", ones, ones + 0j, error=TypeError),
        refused(name, "scores", np.ones(()), np.ones(())),
        refused(name, "axis", ones, ones, axis=2),
        refused(name, "max_fun", ones, ones, max_fun="lse", error=TypeError),
        refused(name, "max_fun", ones, ones, max_fun=jnp.square),
    )
    return LossSpec(
        name=name,
        fn=fenchel_young,
        static={"max_fun": half_square},
        sample=vectors,
        event_ndim=1,
        differentiable=(0, 1),
        reference=half_square_loss,
        gradient=half_square_slopes,
        curvature=lambda s, y: np.broadcast_to(np.eye(3), (*s.shape, 3)),
        convex=True,
        extremes=lengths,
        minimiser=lambda y: y,
        minimum=half_square_minimum,
        symmetries=(flip(0, 1), scale(2, 0, 1), permutation(0, 1)),
        bad_calls=bad,
    )


CLAIMS = [
    Claim(
        fn=sparsemax,
        domains=domains.ROWS,
        settings=(sparse(sparsemax, 1, 0), sparse(sparsemax, 1, 1)),
        accuracy=tuple(sparse_cases(1)),
        line=CLASS_LOGIT,
    ),
    Claim(
        fn=entmax15,
        domains=domains.ROWS,
        # Of ids, it makes the same distributions as sparsemax: a test says so.
        settings=(sparse(entmax15, 2, 1),),
        accuracy=tuple(sparse_cases(2)),
        line=CLASS_LOGIT,
    ),
    Claim(
        fn=fenchel_young,
        domains={"scores": domains.LOGITS, "targets": domains.REAL},
        settings=(generic(),),
        accuracy=(
            Case(
                columns=(LOGITS, WEIGHTS),
                static={"max_fun": half_square},
                conditioned=(True, True, False),
                bounds=(1, 1, 0),
                halves=False,
            ),
        ),
        line=Line(
            "score of the target, two others 0",
            (-4, 4),
            lambda x, _: (vector(x, 0, 0), vector(1, 0, 0)),
        ),
        drawn=({"max_fun": jax.nn.logsumexp}, {"max_fun": jnp.max}),
    ),
]
