"""Claims of the losses that weight the pairs of a batch by how hard they are."""

import functools

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.embedding.formulas import (
    by_anchor,
    dot,
    grouped,
    length,
    minus,
    of_units,
    scores_of,
    transposed,
    turned,
    unit,
)
from jaxloss.claims.embedding.in_batch import (
    GROUP,
    OfBatch,
    batches,
    batches_of_four,
    case,
    edges,
    four_rows,
    group_of_four,
    lengths,
    other_ids,
    weighted,
)
from jaxloss.claims.embedding.tuples import BOTH_DISTANCES, ON_A_LINE, many_digits
from jaxloss.testing.accuracy import Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

# --- the formulas of the papers, of one anchor ---------------------------------------

# Of the cosines with all candidates, and which are positives and negatives: the loss,
# its slope in each cosine, and how sensitive to the rounding of each it is.


def multi_similarity_of(cosines, alike, others, *, alpha, beta, base):
    loss, slopes = mp.mpf(0), [mp.mpf(0)] * len(cosines)
    for rows, scale in ((alike, -alpha), (others, beta)):
        powers = {j: mp.exp(scale * (cosines[j] - base)) for j in rows}
        total = mp.fsum(powers.values())
        loss += mp.log1p(total) / abs(scale)
        for j, power in powers.items():
            slopes[j] = mp.sign(scale) * power / (1 + total)
    return loss, slopes, [(1 + abs(base)) * abs(s) for s in slopes]


def circle_of(cosines, alike, others, *, gamma, margin, fixed=None):
    """`fixed` are the cosines that the weights are of: by default the same."""
    if not alike or not others:
        return mp.mpf(0), [mp.mpf(0)] * len(cosines), [mp.mpf(0)] * len(cosines)
    far = lambda j: (max(0, 1 + margin - (fixed or cosines)[j]), 1 - margin)
    near = lambda k: (max(0, margin + (fixed or cosines)[k]), margin)
    parts = [(j, -1, *far(j)) for j in alike] + [(k, 1, *near(k)) for k in others]
    powers = {
        j: mp.exp(sign * gamma * weight * (cosines[j] - optimum))
        for j, sign, weight, optimum in parts
    }
    totals = {
        -1: mp.fsum(powers[j] for j in alike),
        1: mp.fsum(map(powers.get, others)),
    }
    odds = totals[-1] * totals[1]
    slopes, rough = [mp.mpf(0)] * len(cosines), [mp.mpf(0)] * len(cosines)
    for j, sign, weight, optimum in parts:
        share = gamma * odds / (1 + odds) * powers[j] / totals[sign]
        slopes[j] = sign * weight * share
        rough[j] = (weight + abs(cosines[j] - optimum)) * share
    return mp.log1p(odds), slopes, rough


# --- of one batch, the sum with the weights 1, 2, ... --------------------------------


def of_cosines(of, steep):
    """The formulas of a loss of embeddings, group ids and a mask.

    An exponent is `steep` times a cosine, or less: its rounding error, relative to 1.
    """

    def both_ends(pull):
        pairs = zip(pull, transposed(pull), strict=True)
        return [[s + t for s, t in zip(*rows, strict=True)] for rows in pairs]

    def pulls(which, x, labels, where, **params):
        def one(*args):
            found = of(*args, **params)
            return found[0], found[which]

        return by_anchor(one, scores_of(x, x, 1), grouped(labels, where))

    def reference(x, labels, where, **params):
        return pulls(1, x, labels, where, **params)[0]

    def cancels(x, labels, where, **params):
        _, rough = pulls(2, x, labels, where, **params)
        return mp.fsum(mp.fsum(row) for row in rough)

    def gradient(x, labels, where, **params):
        _, pull = pulls(1, x, labels, where, **params)
        return turned(x, x, both_ends(pull), 1)

    def gradient_cancels(x, labels, where, **params):
        _, rough = pulls(2, x, labels, where, **params)
        sizes = [steep * mp.fsum(row) for row in both_ends(rough)]
        return [
            [size / (length(row) or mp.inf)] * len(row)
            for row, size in zip(x, sizes, strict=True)
        ]

    formulas = (reference, cancels, gradient, gradient_cancels)
    return [common.exact_rows(2, 1, 1)(fn) for fn in formulas]


def spec(fn, of, steep, positive, **claims):
    """`positive` are the hyperparameters that may not be 0."""
    name, x, ids = fn.__name__, np.ones((3, 4)), np.zeros(3, int)
    refused = lambda argument, *args, **kw: common.refused(name, argument, *args, **kw)
    reference, cancels, gradient, gradient_cancels = of_cosines(of, steep)
    params = claims["params"]
    return OfBatch(
        name=f"{name}({', '.join(f'{k}={v}' for k, v in params.items())})",
        fn=fn,
        sample=batches,
        keywords=("where",),
        event_ndim=2,
        reference=reference,
        cancels=cancels,
        gradient=gradient,
        gradient_cancels=gradient_cancels,
        symmetries=(
            lengths(0),
            common.flip(0),
            common.permutation(0, axis=2),
            other_ids(),
        ),
        extremes=edges,
        bad_calls=(
            refused("embeddings", x.astype(int), ids, error=TypeError),
            refused("embeddings", np.ones(3), ids),
            refused("labels", x, np.zeros((3, 1), int)),
            refused("labels", x, np.zeros(3), error=TypeError),
            refused("where", x, ids, where=np.ones((3, 3), bool)),
            refused("where", x, ids, where=np.ones(3), error=TypeError),
            *(refused(key, x, ids, **{key: 0.0}) for key in positive),
            *(refused(key, x, ids, **{key: np.ones(2)}) for key in params),
            *(refused(key, x, ids, **{key: "x"}, error=TypeError) for key in params),
        ),
        **claims,
    )


# --- triplets ------------------------------------------------------------------------


def semi_hard_triplets(x, labels, where, margin, squared):
    """Of each anchor and positive: the weight, the rows, differences and the gap."""
    for i, a in enumerate(x):
        alike, others = grouped(labels, where)(i)
        squares = [dot(minus(a, y), minus(a, y)) for y in x]
        for p in alike if others else ():
            farther = [k for k in others if squares[k] > squares[p]]
            n = (min if farther else max)(farther or others, key=squares.__getitem__)
            near, far = (squares[j] if squared else mp.sqrt(squares[j]) for j in (p, n))
            weight = mp.mpf(1 + i) / len(alike)
            yield weight, (i, p, n), near + far, near - far + margin


@many_digits
def semi_hard_sum(x, labels, where, margin, *, squared):
    found = semi_hard_triplets(x, labels, where, margin, squared)
    return mp.fsum(weight * max(0, gap) for weight, _, _, gap in found)


@many_digits
def semi_hard_size(x, labels, where, margin, *, squared):
    found = semi_hard_triplets(x, labels, where, margin, squared)
    return mp.fsum(weight * size for weight, _, size, _ in found)


@many_digits
def semi_hard_slopes(x, labels, where, margin, *, squared, size=False):
    """And the size of the terms of each."""
    slopes = [[mp.mpf(0)] * len(row) for row in x]
    direction = (lambda v: [2 * t for t in v]) if squared else unit

    def add(row, weight, v):
        v = [abs(t) for t in v] if size else v
        slopes[row] = [s + weight * t for s, t in zip(slopes[row], v, strict=True)]

    found = semi_hard_triplets(x, labels, where, margin, squared)
    for weight, (i, p, n), _, gap in found:
        for sign, j in ((1, p), (-1, n)) if gap > 0 else ():
            away = direction(minus(x[i], x[j]))
            add(i, weight if size else sign * weight, away)
            add(j, weight if size else -sign * weight, away)
    return slopes


def semi_hard(margin, *, squared):
    """A batch: the losses of its anchors, each with its weight."""

    def extremes(dtype):
        """Collapsed; large, tiny; negatives on the anchor and as far as a positive; no
        positive, no negative; padding."""
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
    refused = functools.partial(common.refused, "semi_hard_triplet")
    of = lambda fn, **more: common.exact_rows(2, 1, 1)(
        functools.partial(fn, squared=squared, **more)
    )
    return OfBatch(
        name=f"semi_hard_triplet(margin={margin}, squared={squared})",
        fn=jaxloss.semi_hard_triplet,
        params={"margin": margin},
        static={"squared": squared},
        sample=batches,
        keywords=("where",),
        event_ndim=2,
        reference=of(semi_hard_sum),
        cancels=of(semi_hard_size),
        gradient=of(semi_hard_slopes),
        gradient_cancels=of(semi_hard_slopes, size=True),
        smooth=False,
        symmetries=(
            common.shift(0),
            common.flip(0),
            common.permutation(0, axis=2),
            other_ids(),
        ),
        extremes=extremes,
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


# --- accuracy ------------------------------------------------------------------------

TWO_PAIRS = [3, 3, -1, -1]


def cosines_of_four(first, rest, units):
    """`units`, which are 1, are the lengths of the unit vectors, as in `in_batch`."""
    rows = zip(four_rows(first, rest), units, strict=True)
    u = [[s * v for v in unit(row)] for row, s in rows]
    return of_units(u, u, 1)


def multi_similarity_of_four(first, rest, beta, units):
    one = lambda *args: multi_similarity_of(*args, alpha=2, beta=beta, base=0.5)[:2]
    members = grouped(TWO_PAIRS, [True] * 4)
    return by_anchor(one, cosines_of_four(first, rest, units), members)[0]


def circle_of_four(first, rest, gamma, units, fixed):
    """The weights are of `fixed`, the same as `first`: constants in its derivatives."""
    rows = cosines_of_four(fixed, rest, units)
    members, total = grouped(TWO_PAIRS, [True] * 4), mp.mpf(0)
    for i, row in enumerate(cosines_of_four(first, rest, units)):
        params = {"gamma": gamma, "margin": mp.mpf(1) / 4, "fixed": rows[i]}
        total += (1 + i) * circle_of(row, *members(i), **params)[0]
    return total


def multi_similarities(first, rest, beta, units):
    x, ids = group_of_four(first, rest, TWO_PAIRS)
    return weighted(jaxloss.multi_similarity(x, ids, beta=beta[:, None]))


def circles(first, rest, gamma, units, fixed):
    x, ids = group_of_four(first, rest, TWO_PAIRS)
    return weighted(jaxloss.circle(x, ids, gamma=gamma[:, None], margin=0.25))


def columns_of_four(scales):
    first, rest, _, units = batches_of_four()
    return first, rest, np.array(scales), units


SCALES = [50.0, 10.0, 50.0, 80.0, 80.0, 10.0, 2.0]


def semi_hard_sum_of_four(first, rest, margin, *, squared):
    rows = four_rows(first, rest)
    return semi_hard_sum(rows, TWO_PAIRS, [True] * 4, margin, squared=squared)


def semi_hard_of_four(first, rest, margin, *, squared):
    params = {"margin": margin[:, None], "squared": squared}
    x, ids = group_of_four(first, rest, TWO_PAIRS)
    return weighted(jaxloss.semi_hard_triplet(x, ids, **params))


def semi_hard_cases():
    """Ordinary batches; one far from the origin; one whose two pairs are mixed."""
    x = np.random.default_rng(3).normal(size=(5, 4, 2))
    x[3] = x[3] / 16 + 100
    x[4, 2:] = x[4, 1::-1] + 1e-2 * x[4, 2:]
    for squared in (False, True):
        yield Case(
            name=f"semi_hard_triplet, squared={squared}",
            fn=semi_hard_of_four,
            static={"squared": squared},
            formula=functools.partial(semi_hard_sum_of_four, squared=squared),
            columns=(x[:, 0], x[:, 1:].reshape(5, 6), np.full(5, 4.0)),
            bounds=(0.75, 1.25, 1),
            rowwise=True,
            conditioned=(True, True, True),
            halves=False,  # a law has the value and the gradient in all dtypes
        )


# --- claims --------------------------------------------------------------------------

NOT_ITS_GRADIENT = "the weights are constants in the gradient, as published"

CLAIMS = [
    Claim(
        fn=jaxloss.multi_similarity,
        domains=domains.GROUPS,
        settings=(
            # Not beta=50: differences of step 1e-5 do not resolve its exponentials.
            spec(
                jaxloss.multi_similarity,
                multi_similarity_of,
                10,
                ("alpha", "beta"),
                params={"alpha": 2.0, "beta": 10.0, "base": 0.5},
            ),
        ),
        accuracy=(
            case(
                "multi_similarity",
                multi_similarities,
                multi_similarity_of_four,
                columns_of_four(SCALES),
                (1, 1.25, 3.25),
            ),
        ),
        line=GROUP,
    ),
    Claim(
        fn=jaxloss.circle,
        domains=domains.GROUPS,
        settings=(
            spec(
                jaxloss.circle,
                circle_of,
                20,
                ("gamma",),
                params={"gamma": 8.0, "margin": 0.25},
                exempt=dict.fromkeys(common.OF_DERIVATIVES, NOT_ITS_GRADIENT),
            ),
        ),
        accuracy=(
            case(
                "circle",
                circles,
                circle_of_four,
                (*columns_of_four(SCALES), batches_of_four()[0]),
                (1, 1, 1.25),
            ),
        ),
        line=GROUP,
    ),
    Claim(
        fn=jaxloss.semi_hard_triplet,
        domains=domains.GROUPS,
        settings=(semi_hard(1.0, squared=False), semi_hard(0.5, squared=True)),
        accuracy=tuple(semi_hard_cases()),
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
