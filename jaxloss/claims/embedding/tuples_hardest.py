"""Claims of the loss of the hardest triplets of a batch."""

import functools

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.embedding.formulas import dot, grouped, length, minus, unit
from jaxloss.claims.embedding.in_batch import (
    OfBatch,
    batches,
    four_rows,
    group_of_four,
    other_ids,
    weighted,
)
from jaxloss.claims.embedding.tuples import BOTH_DISTANCES, ON_A_LINE, many_digits
from jaxloss.testing.accuracy import Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp


def hardest(x, labels, where, i):
    """The farthest positive and the nearest negative of a row, or nothing."""
    alike, others = grouped(labels, where)(i)
    if not alike or not others:
        return None
    far = np.array([dot(minus(x[i], y), minus(x[i], y)) for y in x])
    return alike[np.argmax(far[alike])], others[np.argmin(far[others])]


def hard_triplets(x, labels, where, margin, squared):
    """Of each anchor `triplet_margin` of the hardest, where that is not 0."""
    for i, a in enumerate(x):
        if found := hardest(x, labels, where, i):
            to_p, to_n = (minus(a, x[j]) for j in found)
            near, far = (dot(v, v) if squared else length(v) for v in (to_p, to_n))
            if near - far + margin > 0:
                yield i, found, to_p, to_n, near - far + margin


@many_digits
def hard_sum(x, labels, where, margin, *, squared):
    rows = hard_triplets(x, labels, where, margin, squared)
    return mp.fsum((1 + i) * loss for i, *_, loss in rows)


@many_digits
def hard_slopes(x, labels, where, margin, *, squared):
    slopes = [[mp.mpf(0)] * len(row) for row in x]
    rows = hard_triplets(x, labels, where, margin, squared)
    for i, (p, n), to_p, to_n, _ in rows:
        u, v = ([2 * s for s in w] if squared else unit(w) for w in (to_p, to_n))
        for row, pull in ((i, minus(u, v)), (p, [-s for s in u]), (n, v)):
            slopes[row] = [
                s + (1 + i) * t for s, t in zip(slopes[row], pull, strict=True)
            ]
    return slopes


def batch_hard(margin, *, squared):
    """A batch: the losses of its anchors, each with its weight."""

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
    formula = common.exact_rows(2, 1, 1)
    return OfBatch(
        name=f"batch_hard_triplet(margin={margin}, squared={squared})",
        fn=jaxloss.batch_hard_triplet,
        params={"margin": margin},
        static={"squared": squared},
        sample=batches,
        keywords=("where",),
        event_ndim=2,
        reference=formula(functools.partial(hard_sum, squared=squared)),
        gradient=formula(functools.partial(hard_slopes, squared=squared)),
        smooth=False,
        symmetries=(
            common.shift(0),
            common.flip(0),
            common.permutation(0, axis=2),
            other_ids(),
        ),
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


TWO_PAIRS = [3, 3, -1, -1]


def hard_sum_of_four(first, rest, margin, *, squared):
    rows = four_rows(first, rest)
    return hard_sum(rows, TWO_PAIRS, [True] * 4, margin, squared=squared)


def batch_hard_of_four(first, rest, margin, *, squared):
    params = {"margin": margin[:, None], "squared": squared}
    x, ids = group_of_four(first, rest, TWO_PAIRS)
    return weighted(jaxloss.batch_hard_triplet(x, ids, **params))


def batch_cases():
    """Ordinary batches; one far from the origin; one whose two pairs are mixed."""
    x = np.random.default_rng(3).normal(size=(5, 4, 2))
    x[3] = x[3] / 16 + 100
    x[4, 2:] = x[4, 1::-1] + 1e-2 * x[4, 2:]
    for squared in (False, True):
        yield Case(
            name=f"batch_hard_triplet, squared={squared}",
            fn=batch_hard_of_four,
            static={"squared": squared},
            formula=functools.partial(hard_sum_of_four, squared=squared),
            columns=(x[:, 0], x[:, 1:].reshape(5, 6), np.full(5, 4.0)),
            bounds=(2, 2, 2),
            rowwise=True,
            conditioned=(True, True, True),
            halves=False,  # a law has the value and the gradient in all dtypes
        )


CLAIMS = [
    Claim(
        fn=jaxloss.batch_hard_triplet,
        domains=domains.GROUPS,
        settings=(batch_hard(1.0, squared=False), batch_hard(0.5, squared=True)),
        accuracy=tuple(batch_cases()),
        line=Line(
            ON_A_LINE,
            (-1, 2),
            lambda x, _: (
                jnp.stack([x, 0 * x, 0 * x + 1])[:, None],
                jnp.array([0, 0, 1]),
            ),
        ),
        drawn=BOTH_DISTANCES,
    ),
]
