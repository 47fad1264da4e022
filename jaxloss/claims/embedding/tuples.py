"""What is claimed of every loss of `jaxloss.losses.embedding.tuples`."""

import functools

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import common
from jaxloss.claims.embedding.in_batch import (
    OfBatch,
    batches,
    dot,
    grouped,
    length,
    unit,
)
from jaxloss.testing import LossSpec, exact
from jaxloss.testing.exact import mp

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
        extremes=edges,
        bad_calls=(
            *common.refused_pairs(
                "triplet", "positive_distances", "negative_distances"
            ),
            common.refused("triplet", "margin", d, d, margin=-1.0),
            common.refused("triplet", "margin", d, d, margin="wide", error=TypeError),
        ),
    )


# --- on embeddings -----------------------------------------------------------------

# Beside the square of a distance of 1e153 or 1e307, 60 digits do not see a margin of 1.
many_digits = exact.digits(700)


def minus(x, y):
    return [s - t for s, t in zip(x, y, strict=True)]


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


def signed_pairs(rng, shape):
    """Two embeddings, and +1 or -1."""
    a, b = common.vectors(2)(rng, shape)
    return a, b, rng.choice([-1, 1], size=shape)


def cosine(a, b):
    return dot(unit(a), unit(b))


@common.exact_rows(1, 1, 0)
def cosine_reference(a, b, label, margin):
    return 1 - cosine(a, b) if label == 1 else max(0, cosine(a, b) - margin)


@common.exact_rows(1, 1, 0)
def cosine_gradient(a, b, label, margin):
    c, u, v = cosine(a, b), unit(a), unit(b)
    sign = -1 if label == 1 else int(c > margin)
    slope = lambda x, u, v: [
        sign * (t - c * s) / (length(x) or mp.inf) for s, t in zip(u, v, strict=True)
    ]
    # A zero vector has no direction: the other one gains nothing by turning.
    return slope(a, u, v), slope(b, v, u)


def cosine_embedding(margin):
    def edges(dtype):
        """Zero, identical, opposite and nearly orthogonal vectors, long and short."""
        z, e = np.zeros((1, 4)), np.eye(4)[:1]
        x = np.array([[1.0, 2.0, -3.0, 0.5]])
        y = np.array([[2.0, -1.0, 0.25, 0.0]])
        # The second derivative, of size 1 / low^2, is still a number.
        top, low = common.big(dtype) / 4, 16 * np.sqrt(common.tiny(dtype))
        pairs = [(z, z), (z, x), (x, z), (x, x), (x, -x), (x, y), (e, x)]
        pairs += [(top * e, e), (e, top * x / 3), (low * e, x), (x, low * y)]
        return [(a, b, np.full(1, y)) for a, b in pairs for y in (-1, 1)]

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


# --- the hardest of a batch ----------------------------------------------------------


def hardest(x, labels, where, i):
    """The farthest positive and the nearest negative of a row, or nothing."""
    alike, others = grouped(labels, where)(i)
    if not alike or not others:
        return None
    far = np.array([dot(minus(x[i], y), minus(x[i], y)) for y in x])
    return alike[np.argmax(far[alike])], others[np.argmin(far[others])]


def batch_hard(margin, *, squared):
    """A batch: of each anchor `triplet_margin` of the hardest, with its weight."""

    def triplets(x, labels, where, margin):
        for i, a in enumerate(x):
            if found := hardest(x, labels, where, i):
                to_p, to_n = (minus(a, x[j]) for j in found)
                near, far = (dot(v, v) if squared else length(v) for v in (to_p, to_n))
                if near - far + margin > 0:
                    yield i, found, to_p, to_n, near - far + margin

    @common.exact_rows(2, 1, 1)
    @many_digits
    def reference(x, labels, where, margin):
        rows = triplets(x, labels, where, margin)
        return mp.fsum((1 + i) * loss for i, *_, loss in rows)

    @common.exact_rows(2, 1, 1)
    @many_digits
    def gradient(x, labels, where, margin):
        slopes = [[mp.mpf(0)] * len(row) for row in x]
        for i, (p, n), to_p, to_n, _ in triplets(x, labels, where, margin):
            u, v = ([2 * s for s in w] if squared else unit(w) for w in (to_p, to_n))
            for row, pull in ((i, minus(u, v)), (p, [-s for s in u]), (n, v)):
                slopes[row] = [
                    s + (1 + i) * t for s, t in zip(slopes[row], pull, strict=True)
                ]
        return slopes

    def edges(dtype):
        """Collapsed; large, tiny; a negative on its anchor; no positive, no negative;
        padding.  No two rows are equally hard: which one is chosen is not said."""
        x, e = np.random.default_rng(1).normal(size=(5, 3)), np.eye(3)
        top = common.root(dtype) / 8 if squared else common.big(dtype) / 16
        on = np.stack([e[0], e[0], -e[0], -2 * e[0], e[1] + e[0] / 4])
        groups, alike, alone = [3, 4, 3, 4, 4], [1] * 5, [-1, -2, -3, -4, -5]
        # Differences of tiny rows keep their digits too.
        low = common.tiny(dtype) / float(jnp.finfo(dtype).eps)
        rows = [0 * x, np.ones((5, 3)), top * x, low * x, x, on]
        cases = [(r, groups, [True] * 5) for r in rows]
        cases += [(top * x, ids, [True] * 5) for ids in (alike, alone)]
        cases += [(x, groups, [True, False, True, True, True]), (x, alike, [False] * 5)]
        for r, ids, where in cases:
            yield r[None], np.array([ids]), np.array([where])

    x, ids = np.ones((3, 4)), np.zeros(3, int)
    refused = functools.partial(common.refused, "batch_hard_triplet")
    return OfBatch(
        name=f"batch_hard_triplet(margin={margin}, squared={squared})",
        fn=jaxloss.batch_hard_triplet,
        params={"margin": margin},
        static={"squared": squared},
        sample=batches,
        keywords=("where",),
        event_ndim=2,
        reference=reference,
        gradient=gradient,
        smooth=False,
        extremes=edges,
        bad_calls=(
            refused("embeddings", x.astype(int), ids, error=TypeError),
            refused("embeddings", np.ones(3), ids),
            refused("labels", x, ids[:2]),
            refused("labels", x, ids.astype(float), error=TypeError),
            refused("where", x, ids, where=np.ones((3, 3), bool)),
            refused("where", x, ids, where=np.ones(3), error=TypeError),
            refused("margin", x, ids, margin=-1.0),
            refused("margin", x, ids, margin=np.ones(2)),
            refused("margin", x, ids, margin="wide", error=TypeError),
        ),
    )


SPECS = [
    contrastive(1.0, soft=True),
    contrastive(0.3, soft=False),
    triplet(1.0),
    triplet(0.2),
    triplet_margin(1.0, squared=False),
    triplet_margin(0.2, squared=False),
    triplet_margin(1.0, squared=True),
    batch_hard(1.0, squared=False),
    batch_hard(0.5, squared=True),
    cosine_embedding(0.0),
    cosine_embedding(0.5),
]
