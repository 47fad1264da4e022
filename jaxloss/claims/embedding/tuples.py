"""Claims of the losses of pairs and triplets."""

import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.embedding.cosine import SYMMETRIES, directions
from jaxloss.claims.embedding.formulas import (
    cosine,
    cosine_slopes,
    dot,
    length,
    minus,
    unit,
)
from jaxloss.claims.embedding.in_batch import HALF_TURN, X, at_angle
from jaxloss.testing import LossSpec, exact
from jaxloss.testing.accuracy import Case
from jaxloss.testing.claim import Claim, Line

# --- on given distances ------------------------------------------------------------


def soft_pairs(rng, shape):
    """Distances, and how similar each pair is."""
    return np.abs(rng.normal(size=shape)), rng.uniform(0.05, 0.95, size=shape)


def hard_pairs(rng, shape):
    """Distances, and whether each pair is similar, as 0 and 1."""
    return np.abs(rng.normal(size=shape)), rng.integers(0, 2, size=shape)


@common.exact
def contrastive_reference(d, y, margin):
    return y * d**2 + (1 - y) * max(0, margin - d) ** 2


@common.exact
def slope_in_distance(d, y, margin):
    return 2 * y * d - 2 * (1 - y) * max(0, margin - d)


@common.exact
def slope_in_similarity(d, y, margin):
    return d**2 - max(0, margin - d) ** 2


def contrastive(margin, *, soft):
    def edges(dtype):
        d = common.ladder(dtype, top=common.root(dtype))
        d = np.unique(np.abs(np.append(d, margin)))
        kind = float if soft else int
        return [(d, np.full(d.shape, y, kind)) for y in (0, 1)]

    d, y = np.ones(3), np.ones(3, int)
    both = lambda d, y, margin: (
        slope_in_distance(d, y, margin=margin),
        slope_in_similarity(d, y, margin=margin),
    )
    return LossSpec(
        name=f"contrastive(margin={margin}, {'soft' if soft else 'hard'})",
        fn=jaxloss.contrastive,
        params={"margin": margin},
        sample=soft_pairs if soft else hard_pairs,
        differentiable=(0, 1) if soft else 0,
        reference=contrastive_reference,
        gradient=both if soft else slope_in_distance,
        curvature=lambda d, y, margin: 2 * y + 2 * (1 - y) * (d < margin),
        smooth=False,
        minimiser=lambda y, margin: (1 - y) * margin,
        minimum=lambda y, margin: y * (1 - y) * margin**2,
        functional=lambda y, margin: (1 - np.mean(y)) * margin,
        convex=True,
        extremes=edges,
        bad_calls=(
            *common.refused_pairs("contrastive", "distances", "similar"),
            common.refused("contrastive", "similar", d, "yes", error=TypeError),
            common.refused("contrastive", "margin", d, y, margin=-0.5),
            common.refused("contrastive", "margin", d, y, margin=np.ones((3, 1))),
            common.refused("contrastive", "margin", d, y, margin=True, error=TypeError),
        ),
    )


# Distances on both sides of the margin and close to it.
DISTANCES = np.array([0.0, 1e-3, 0.3, 0.49, 0.498, 0.51, 0.999, 1.5, 40.0])
MARGINS = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 50.0])
SHARES = np.array([0.3, 0.9, 0.49, 0.02, 0.1, 0.5, 0.001, 0.7, 0.2])


def contrastive_case(name, similar, argument, **claims):
    columns = (DISTANCES, similar, MARGINS)
    return Case(
        name=name, columns=columns, names=("margin",), argument=argument, **claims
    )


def contrastive_cases():
    for y, what in ((0.0, "dissimilar"), (1.0, "similar")):
        for argument, name in ((0, "distances"), (2, "margin")):
            yield contrastive_case(
                f"in {name}, {what}",
                np.full(len(DISTANCES), y),
                argument,
                bounds=(2, 1, 0),
            )
    for argument, name in enumerate(("distances", "similar", "margin")):
        yield contrastive_case(
            f"in {name}, soft",
            SHARES,
            argument,
            bounds=(2, 1, 1),
            # Both pulls balance where the slope is 0.
            conditioned=(False, True, True),
        )


def two_distances(rng, shape):
    return np.abs(rng.normal(size=shape)), np.abs(rng.normal(size=shape))


@common.exact
def triplet_reference(near, far, margin):
    return max(0, near - far + margin)


def triplet_gradient(near, far, margin):
    active = np.sign(triplet_reference(near, far, margin=margin))
    return active, -active


def triplet(margin):
    def edges(dtype):
        steps = np.unique(np.abs(common.ladder(dtype)))
        zero, big = np.zeros_like(steps), np.full_like(steps, common.big(dtype))
        return [(steps, zero), (zero, steps), (steps, steps), (big, steps)]

    d = np.ones(3)
    return LossSpec(
        name=f"triplet(margin={margin})",
        fn=jaxloss.triplet,
        params={"margin": margin},
        sample=two_distances,
        differentiable=(0, 1),
        reference=triplet_reference,
        gradient=triplet_gradient,
        curvature=lambda near, far, margin: np.zeros_like(near),
        smooth=False,
        minimiser=lambda far, margin: far - margin,
        convex=True,
        symmetries=(common.shift(0, 1),),
        extremes=edges,
        bad_calls=(
            *common.refused_pairs(
                "triplet", "positive_distances", "negative_distances"
            ),
            common.refused("triplet", "margin", d, d, margin=-1.0),
            common.refused("triplet", "margin", d, d, margin="wide", error=TypeError),
        ),
    )


NEAR = np.array([1.0, 100.1, 3e-3, 0.7, 1e4, 1.0 + 2**-10, 5.0])
FAR = np.array([1.2, 100.3, 1e-3, 0.9, 3.0, 1.0, 5.7])
GAPS = np.array([0.5, 0.2, 1e-5, 0.2, 1.0, 2**-12, 0.5])


def triplet_cases():
    for argument, name in enumerate(("positive", "negative", "margin")):
        yield Case(
            name=f"in {name}",
            columns=(NEAR, FAR, GAPS),
            names=("margin",),
            argument=argument,
            # Not conditioned: the difference is rounded once, whatever it cancels.
            bounds=(1, 0, 0),
        )


# --- on embeddings -----------------------------------------------------------------

# Beside the square of a distance of 1e153 or 1e307, 60 digits do not see a margin of 1.
many_digits = exact.digits(700)


@common.exact_rows(1, 1, 1)
@many_digits
def distance_reference(a, p, n, margin):
    return max(0, length(minus(a, p)) - length(minus(a, n)) + margin)


@common.exact_rows(1, 1, 1)
@many_digits
def distance_gradient(a, p, n, margin):
    to_p, to_n = minus(a, p), minus(a, n)
    active = length(to_p) - length(to_n) + margin > 0
    u, v = ([active * x for x in unit(w)] for w in (to_p, to_n))
    return minus(u, v), [-x for x in u], v


@common.exact_rows(1, 1, 1)
@many_digits
def squared_reference(a, p, n, margin):
    to_p, to_n = minus(a, p), minus(a, n)
    return max(0, dot(to_p, to_p) - dot(to_n, to_n) + margin)


@common.exact_rows(1, 1, 1)
@many_digits
def squared_gradient(a, p, n, margin):
    to_p, to_n = minus(a, p), minus(a, n)
    active = 2 * int(dot(to_p, to_p) - dot(to_n, to_n) + margin > 0)
    u, v = ([active * x for x in w] for w in (to_p, to_n))
    return minus(u, v), [-x for x in u], v


def triplet_margin(margin, *, squared):
    def edges(dtype):
        """Collapsed, coinciding in pairs, on one line, on the margin, large, tiny."""
        z, e = np.zeros((1, 4)), np.eye(4)[:1]
        top = common.root(dtype) if squared else common.big(dtype)
        far, small = top * e, 64 * common.tiny(dtype) * e
        close = e * (1 + float(np.finfo(np.float16).eps))
        return [
            (z, z, z),
            (e, e, e),
            (e, e, z),
            (z, e, e),
            (z, e, z),
            (e, e, 0.75 * e),
            (z, e, -e),
            (z, e, (1 + margin) * e),
            (far, z, close),
            (far, -far, far),
            (z, close, e),
            (z, small, -small),
        ]

    x = np.ones((3, 4))
    triple = (x, x, x)
    return LossSpec(
        name=f"triplet_margin(margin={margin}, squared={squared})",
        fn=jaxloss.triplet_margin,
        params={"margin": margin},
        static={"squared": squared},
        sample=common.vectors(3),
        event_ndim=1,
        differentiable=(0, 1, 2),
        reference=squared_reference if squared else distance_reference,
        gradient=squared_gradient if squared else distance_gradient,
        smooth=False,
        extremes=edges,
        convex=squared,
        symmetries=(
            common.shift(0, 1, 2),
            common.flip(0, 1, 2),
            common.permutation(0, 1, 2),
        ),
        bad_calls=(
            common.refused("triplet_margin", "negatives", x, x, np.ones((1, 4))),
            common.refused("triplet_margin", "positives", x, np.ones(4), x),
            common.refused(
                "triplet_margin", "anchors", x.astype(int), x, x, error=TypeError
            ),
            common.refused("triplet_margin", "axis", *triple, axis=-3),
            common.refused("triplet_margin", "margin", *triple, margin=-1.0),
            common.refused("triplet_margin", "margin", *triple, margin=np.ones(4)),
        ),
    )


def triplets(scale=1.0):
    """Ordinary triplets; negatives near positives, of a near and of a far anchor; an
    anchor right between the two."""
    rng = np.random.default_rng(0)
    a, p, n = (rng.normal(size=(6, 3)) for _ in range(3))
    step = np.array([[1e-3]])
    n[2:3] = p[2:3] + step * n[2:3]
    a[3], p[3], n[3] = a[3] + 30, step * p[3], step * n[3]
    n[4:5] = 2 * a[4:5] - p[4:5] + step * n[4:5]
    a[5] = p[5] + np.array([0.0, 0.0, 1e-3])
    return scale * a, scale * p, scale * n, scale * np.full(6, 3.0)


def triplet_margin_case(name, scale=1.0, **claims):
    return Case(
        name=name,
        columns=triplets(scale),
        names=("margin",),
        rowwise=True,
        conditioned=(True, True, True),
        **claims,
    )


def triplet_margin_cases():
    for argument, name in enumerate(("anchors", "positives", "negatives")):
        yield triplet_margin_case(f"in {name}", argument=argument, bounds=(2, 2, 2))
        yield triplet_margin_case(
            f"in {name}, squared",
            argument=argument,
            static={"squared": True},
            formula=squared_reference.formula,
            bounds=(2, 1, 0),
        )
    for scale in (1e30, 1e-30):
        yield triplet_margin_case(
            f"at the scale {scale}", scale, bounds=(2, 2, 2), halves=False
        )


def signed_pairs(rng, shape):
    """Two embeddings, and +1 or -1."""
    a, b = common.vectors(2)(rng, shape)
    return a, b, rng.choice([-1, 1], size=shape)


@common.exact_rows(1, 1, 0)
def cosine_reference(a, b, label, margin):
    return 1 - cosine(a, b) if label == 1 else max(0, cosine(a, b) - margin)


@common.exact_rows(1, 1, 0)
def cosine_gradient(a, b, label, margin):
    sign = -1 if label == 1 else int(cosine(a, b) > margin)
    return cosine_slopes(a, b, sign)


def cosine_embedding(margin):
    def edges(dtype):
        return [(*x, np.full(1, y)) for x in directions(dtype) for y in (-1, 1)]

    x, y = np.ones((3, 4)), np.ones(3, int)
    refused = lambda argument, *args, **kw: common.refused(
        "cosine_embedding", argument, *args, **kw
    )
    return LossSpec(
        name=f"cosine_embedding(margin={margin})",
        fn=jaxloss.cosine_embedding,
        params={"margin": margin},
        sample=signed_pairs,
        event_ndim=1,
        differentiable=(0, 1),
        reference=cosine_reference,
        gradient=cosine_gradient,
        smooth=False,
        minimiser=lambda b, labels, margin: labels[:, None] * b,
        fill=1.0,
        symmetries=SYMMETRIES,
        extremes=edges,
        bad_calls=(
            refused("second", x, np.ones((3, 1)), y),
            refused("second", x, np.ones(4), y),
            refused("labels", x, x, np.ones((3, 1), int)),
            refused("labels", x, x, y > 0, error=TypeError),
            refused("first", x.astype(int), x, y, error=TypeError),
            refused("axis", x, x, y, axis=2),
            refused("margin", x, x, y, margin=1.5),
        ),
    )


def cosine_pairs():
    """Ordinary, nearly parallel, nearly opposite, nearly orthogonal and dominated by
    one component; the first two and the last with the label -1 too."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(6, 3)) for _ in range(2))
    step = np.array([1e-3])
    b[1] = 0.3 * a[1] + step * b[1]
    b[2] = -1.7 * a[2] + step * b[2]
    b[3] -= a[3] * (a[3] @ b[3]) / (a[3] @ a[3]) - step * a[3]
    a[4], b[4] = [1.1, 1e-3, 3e-4], [1.7, 2e-3, -1e-3]
    a[5], b[5] = [1.1, 1e-3, 3e-4], [0.3, 1.7, -1e-3]
    twice = np.array([0, 1, 2, 3, 4, 5, 0, 1, 5])
    labels = np.where(np.arange(9) < 6, 1, -1)
    # With a margin of -0.9 these three are above the kink.
    return a[twice], b[twice], labels, np.full(9, -0.9)


def cosine_cases():
    # The second vector has the derivatives of the first, of the pair turned round.
    for argument, name, rows in ((0, "first", slice(9)), (1, "second", slice(4, 7))):
        yield Case(
            name=f"in {name}",
            columns=tuple(x[rows] for x in cosine_pairs()),
            names=("margin",),
            fixed=(2,),
            argument=argument,
            bounds=(2, 2, 2),
            conditioned=(True, True, True),
        )


# --- claims --------------------------------------------------------------------------

# Of the losses that can square distances.
ON_A_LINE = "anchor: positive at 0, negative at 1"
BOTH_DISTANCES = ({"squared": False}, {"squared": True})

CLAIMS = [
    Claim(
        fn=jaxloss.contrastive,
        domains={"distances": domains.DISTANCES, "similar": domains.BITS},
        settings=(contrastive(1.0, soft=True), contrastive(0.3, soft=False)),
        accuracy=tuple(contrastive_cases()),
        line=Line(
            "distance",
            (0, 2),
            lambda x, y: (x, 0 * x + y),
            (("similar", 1.0), ("not similar", 0.0)),
        ),
        drawn=({},),
    ),
    Claim(
        fn=jaxloss.triplet,
        domains={
            "positive_distances": domains.DISTANCES,
            "negative_distances": domains.DISTANCES,
        },
        settings=(triplet(1.0), triplet(0.2)),
        accuracy=tuple(triplet_cases()),
        line=Line(
            "positive distance − negative distance",
            (-3, 3),
            lambda x, _: (3 + x, 0 * x + 3),
        ),
    ),
    Claim(
        fn=jaxloss.triplet_margin,
        domains={
            "anchors": domains.REAL,
            "positives": domains.REAL,
            "negatives": domains.REAL,
        },
        settings=(
            triplet_margin(1.0, squared=False),
            triplet_margin(0.2, squared=False),
            triplet_margin(1.0, squared=True),
        ),
        accuracy=tuple(triplet_margin_cases()),
        line=Line(
            ON_A_LINE, (-1, 2), lambda x, _: (x[None], 0 * x[None], 0 * x[None] + 1)
        ),
        drawn=BOTH_DISTANCES,
    ),
    Claim(
        fn=jaxloss.cosine_embedding,
        domains={
            "first": domains.REAL,
            "second": domains.REAL,
            "labels": domains.SIGNS,
        },
        settings=(cosine_embedding(0.0), cosine_embedding(0.5)),
        accuracy=tuple(cosine_cases()),
        line=Line(
            "angle between the two",
            HALF_TURN,
            lambda x, y: (at_angle(x), X, y),
            (("label +1", 1.0), ("label −1", -1.0)),
        ),
        drawn=({},),
    ),
]
