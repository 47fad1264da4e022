"""Claims of the in-batch contrastive losses."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.embedding.formulas import (
    both_ways,
    by_anchor,
    coupled,
    grouped,
    nt_xent_of,
    of_one_batch,
    of_pairs,
    of_products,
    of_units,
    sigmoid_of,
    supervised_of,
    unit,
)
from jaxloss.testing import LossSpec, Symmetry
from jaxloss.testing.accuracy import Case
from jaxloss.testing.claim import Claim, Line


class OfBatch(LossSpec):
    """A loss that couples a batch `(batch, components)` and has a value per anchor.

    One example of the laws is a batch, so they see one number of it: the sum, in which
    every anchor has a weight of its own, or a swap of two anchors would not show.
    """

    def __call__(self, *args, **overrides):
        return weighted(super().__call__(*args, **overrides))


def weighted(losses):
    """The sum over the last axis with the weights 1, 2, ..."""
    weights = jnp.arange(1, losses.shape[-1] + 1, dtype=losses.dtype)
    return jnp.sum(losses * weights.reshape([1] * (losses.ndim - 1) + [-1]), -1)


# --- samples and edges ---------------------------------------------------------------


def batches(rng, shape):
    """Five rows in groups, three and two, or with one that is alone; half of the
    batches have padding."""
    groups = np.array([[0, 0, 0, 1, 1], [-7, 5, -7, 5, 300]])
    labels = rng.permuted(groups[rng.integers(2, size=shape)], axis=-1)
    padded = rng.integers(2, size=(*shape, 1)) * rng.uniform(size=labels.shape) > 0.7
    return rng.normal(size=(*shape, 5, 3)), labels, ~padded


def pairs(rng, shape):
    """Four pairs that have to do with each other; half of the batches have padding."""
    x, noise = rng.normal(size=(2, *shape, 4, 3))
    padded = rng.integers(2, size=(*shape, 1)) * rng.uniform(size=(*shape, 4)) > 0.7
    return x, 0.5 * x + noise, ~padded


def edge_rows(dtype):
    """Zero, ordinary, identical, long and short, opposite and partly zero rows."""
    e, x = np.eye(3), np.random.default_rng(1).normal(size=(5, 3))
    # The second derivative, of size 1 / low^2, is still a number.
    top, low = common.big(dtype) / 4, 64 * np.sqrt(common.tiny(dtype))
    lengths = np.array([[1], [top], [low], [1], [low]])
    apart = np.stack([e[0], e[0], -e[0], -e[0], e[1]])
    return [0 * x, x, np.ones((5, 3)), lengths * x / 3, apart, x * (apart != 0)]


def edges(dtype):
    """Rows at the edges; no positives, no negatives."""
    ordinary, alike, alone = [3, 3, 4, 4, 3], [1, 1, 1, 1, 1], [-1, -2, -3, -4, -5]
    rows = edge_rows(dtype)
    pairs = [(r, ordinary) for r in rows]
    pairs += [(r, groups) for r in (rows[1], rows[4]) for groups in (alike, alone)]
    # With the samples no more than 32, the number that programs are compiled for.
    everyone, some = [True] * 5, [True, True, True, False, True]
    masks = [everyone] * len(pairs) + [some] * 5 + [[False] * 5]
    for (r, groups), where in zip(pairs + pairs[1:7], masks, strict=True):
        yield r[None], np.array([groups]), np.array([where])


def product_edges(dtype):
    """The same for inner products, whose squares the second derivative has: finite."""
    top = float(np.sqrt(common.root(dtype))) / 64
    for x, y, where in pair_edges(dtype):
        x, y = (np.where(np.abs(v) > top, np.sign(v) * top, v) for v in (x, y))
        yield x, y, where
    # Every score far below 0, and far apart.
    x = np.ones((4, 3)) * [[30], [31], [90], [400]]
    yield x[None], -x[None, ::-1], np.ones((1, 4), bool)


def pair_edges(dtype):
    """The same for pairs: every kind of rows with itself, and with ordinary ones; one
    pair alone, or none."""
    rows = [r[:4] for r in edge_rows(dtype)]
    everyone, some, one = [True] * 4, [True, False, True, True], [False] * 3 + [True]
    found = [(r, r, everyone) for r in rows]
    found += [(r, rows[1], some) for r in rows] + [(rows[1], -r, some) for r in rows]
    found += [(rows[1], rows[5], where) for where in (one, [False] * 4)]
    for x, y, where in found:
        yield x[None], y[None], np.array([where])


# --- what changes nothing ------------------------------------------------------------


def lengths(*positions):
    """Rows of the arguments at `positions` as long as they like."""

    def move(rng, *args):
        moved = list(args)
        for i in positions:
            powers = rng.integers(-3, 4, size=(*args[i].shape[:-1], 1))
            moved[i] = 2.0**powers * args[i]
        return tuple(moved)

    return Symmetry("other lengths", move)


def traded(rng, *args):
    """What the first of a pair gains in length, all seconds lose."""
    x, y, *rest = args
    power = 2.0 ** rng.integers(-3, 4, size=(len(x), 1, 1))
    return x * power, y / power, *rest


def other_ids(position=1):
    """Ids are compared only."""
    renamed = lambda rng, *args: tuple(
        5 - 3 * a if i == position else a for i, a in enumerate(args)
    )
    return Symmetry("other ids", renamed)


# --- laws ----------------------------------------------------------------------------


def bad_temperatures(loss, *args, **params):
    refused = lambda temperature, **kw: common.refused(
        loss, "temperature", *args, **{**params, "temperature": temperature}, **kw
    )
    return (
        refused(0.0),
        refused(-0.1),
        refused(np.ones(2)),
    )


def batch_spec(fn, of, temperature):
    name, x, ids = fn.__name__, np.ones((3, 4)), np.zeros(3, int)
    refused = lambda argument, *args, **kw: common.refused(name, argument, *args, **kw)
    reference, cancels, gradient, gradient_cancels = of_one_batch(of)
    return OfBatch(
        name=f"{name}(temperature={temperature})",
        fn=fn,
        params={"temperature": temperature},
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
            refused("labels", x, np.zeros(4, int)),
            refused("labels", x, np.zeros(3), error=TypeError),
            refused("where", x, ids, where=np.ones((3, 3), bool)),
            refused("where", x, ids, where=np.ones(3), error=TypeError),
            *bad_temperatures(name, x, ids),
            refused("temperature", x, ids, temperature="cold", error=TypeError),
        ),
    )


def product_spec(fn, of, directions, **params):
    """Of the embeddings as they are, of lengths that count."""
    spec = pair_spec(fn, of, directions, "first", "second", **params)
    reference, cancels, gradient, gradient_cancels = of_products(of, directions)
    name, x = fn.__name__, np.ones((3, 4))
    bad = {**params, "normalize": "no", "error": TypeError}
    return dataclasses.replace(
        spec,
        name=spec.name.replace("(", "(normalize=False, "),
        static={"normalize": False},
        reference=reference,
        cancels=cancels,
        gradient=gradient,
        gradient_cancels=gradient_cancels,
        convex=True,
        symmetries=(
            Symmetry("lengths that cancel", traded),
            common.flip(0, 1),
            common.permutation(0, 1, axis=2),
        ),
        extremes=product_edges,
        bad_calls=(common.refused(name, "normalize", x, x, **bad),),
    )


def pair_spec(fn, of, directions, first, second, *, symmetries=(), **params):
    name, x = fn.__name__, np.ones((3, 4))
    refused = lambda argument, *args, **kw: common.refused(
        name, argument, *args, **{**params, **kw}
    )
    reference, cancels, gradient, gradient_cancels = of_pairs(of, directions)
    setting = ", ".join(f"{key}={value}" for key, value in params.items())
    return OfBatch(
        name=f"{name}({setting})",
        fn=fn,
        params=params,
        sample=pairs,
        keywords=("where",),
        event_ndim=2,
        differentiable=(0, 1),
        reference=reference,
        cancels=cancels,
        gradient=gradient,
        gradient_cancels=gradient_cancels,
        symmetries=(
            lengths(0, 1),
            common.flip(0, 1),
            common.permutation(0, 1, axis=2),
            *symmetries,
        ),
        extremes=pair_edges,
        bad_calls=(
            refused(first, x.astype(int), x, error=TypeError),
            refused(second, x, x.astype(int), error=TypeError),
            refused(first, np.ones(3), np.ones(3)),
            refused(second, x, x[:2]),
            refused(second, x, x[:, :1]),
            refused("where", x, x, where=np.ones((3, 3), bool)),
            refused("where", x, x, where=np.ones(3), error=TypeError),
            *bad_temperatures(name, x, x, **params),
            *(refused(key, x, x, **{key: "high"}, error=TypeError) for key in params),
        ),
    )


# --- accuracy ------------------------------------------------------------------------

# Of four rows of two components, of which the first is differentiated.  `units`, which
# are 1, are the lengths of the unit vectors: their rounding belongs to the condition of
# a loss, 1 / temperature even where a cosine is stationary.


def four_rows(first, rest):
    return [first, rest[:2], rest[2:4], rest[4:]]


def formula_of_four(of, directions, members, *, pairs):
    """The weighted sum for a group of four, or for the pairs (a, c) and (b, d)."""

    def formula(first, rest, temperature, units):
        rows = zip(four_rows(first, rest), units, strict=True)
        u = [[s * v for v in unit(row)] for row, s in rows]
        scores = of_units(*((u[:2], u[2:]) if pairs else (u, u)), temperature)
        return directions(of, scores, members)[0]

    return formula


def batch_of_four(first, rest):
    return jnp.concatenate([first, rest], axis=-1).reshape(-1, 4, 2)


def group_of_four(first, rest, ids):
    """Batches of four rows, and the ids of each."""
    x = batch_of_four(first, rest)
    return x, jnp.broadcast_to(jnp.array(ids), x.shape[:2])


def of_group(fn, ids):
    return lambda first, rest, temperature, units: weighted(
        fn(*group_of_four(first, rest, ids), temperature=temperature[:, None])
    )


def of_two_pairs(fn, **params):
    def evaluate(first, rest, temperature, units):
        x, scale = batch_of_four(first, rest), temperature[:, None]
        return weighted(fn(x[:, :2], x[:, 2:], temperature=scale, **params))

    return evaluate


def at_angles(*degrees):
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=-1)


def batches_of_four():
    """Ordinary; of different lengths; pairs far apart, at 0.07 and at 0.01; all nearly
    the same; hard negatives; opposite rows on the axes."""
    rng = np.random.default_rng(0)
    found = [
        (rng.normal(size=(4, 2)), 0.07),
        (rng.normal(size=(4, 2)) * [[300.0], [0.03], [1], [7]], 0.5),
        (at_angles(0, 3, 170, 185), 0.07),
        (at_angles(0, 30, 85, 140), 0.01),
        (at_angles(0, 1, 2, 3), 0.01),
        (at_angles(10, 100, 10.01, 99.9), 0.1),
        (at_angles(0, 180, 1, 179) * [[3], [0.1], [2], [5]], 0.2),
    ]
    x = np.stack([rows.ravel() for rows, _ in found])
    return x[:, :2], x[:, 2:], np.array([t for _, t in found]), np.ones((7, 4))


def case(name, fn, formula, columns, bounds, argument=0):
    return Case(
        name=name,
        fn=fn,
        formula=formula,
        columns=columns,
        argument=argument,
        rowwise=True,
        conditioned=(True, True, True),
        bounds=bounds,
        halves=False,  # a law has the value and the gradient in all dtypes
    )


def cases_of_groups(fn, of, ids, **arguments):
    """One for each name: the argument that is differentiated."""
    members = grouped(ids, [True] * 4)
    formula = formula_of_four(of, by_anchor, members, pairs=False)
    batch = of_group(fn, ids)
    of_four = batch, formula, batches_of_four(), (2, 2, 3)
    return tuple(case(name, *of_four, argument=i) for name, i in arguments.items())


def case_of_pairs(fn, of, directions, **params):
    members = coupled([True, True])
    formula = formula_of_four(of, directions, members, pairs=True)
    batch = of_two_pairs(fn, **params)
    return (case(fn.__name__, batch, formula, batches_of_four(), (2, 2, 3)),)


# --- lines ---------------------------------------------------------------------------

HALF_TURN = (0.0, math.pi)
X, Y = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def at_angle(x):
    """The unit vector at an angle to the first axis."""
    return jnp.stack([jnp.cos(x), jnp.sin(x)])


GROUP = Line(
    "angle between anchor and positive",
    HALF_TURN,
    # Two rows of another group are across from them.
    lambda x, _: (jnp.stack([at_angle(x), X, Y, Y]), jnp.array([0, 0, 1, 1])),
)
TWO_PAIRS = Line(
    "angle between the two of a pair",
    HALF_TURN,
    lambda x, _: (jnp.stack([at_angle(x), Y]), jnp.stack([X, Y])),
)


# --- claims --------------------------------------------------------------------------

# Not 0.07: differences of step 1e-5 do not resolve exp(-2 / temperature) there.
TEMPERATURE = 0.1

CLAIMS = [
    Claim(
        fn=jaxloss.nt_xent,
        domains=domains.GROUPS,
        settings=(batch_spec(jaxloss.nt_xent, nt_xent_of, TEMPERATURE),),
        accuracy=cases_of_groups(
            jaxloss.nt_xent,
            nt_xent_of,
            [3, 3, -1, -1],
            **{"nt_xent in embeddings": 0, "nt_xent in temperature": 2},
        ),
        line=GROUP,
    ),
    Claim(
        fn=jaxloss.clip,
        domains={"first": domains.REAL, "second": domains.REAL},
        settings=(
            pair_spec(
                jaxloss.clip,
                nt_xent_of,
                both_ways,
                "first",
                "second",
                symmetries=(common.swap(),),
                temperature=TEMPERATURE,
            ),
            product_spec(jaxloss.clip, nt_xent_of, both_ways, temperature=1.5),
        ),
        accuracy=case_of_pairs(jaxloss.clip, nt_xent_of, both_ways),
        line=TWO_PAIRS,
    ),
    Claim(
        fn=jaxloss.supervised_contrastive,
        domains=domains.GROUPS,
        settings=(
            batch_spec(jaxloss.supervised_contrastive, supervised_of, TEMPERATURE),
        ),
        accuracy=cases_of_groups(
            jaxloss.supervised_contrastive,
            supervised_of,
            [5, 5, 5, -2],
            supervised_contrastive=0,
        ),
        line=GROUP,
    ),
    Claim(
        fn=jaxloss.info_nce,
        domains={"anchors": domains.REAL, "positives": domains.REAL},
        settings=(
            pair_spec(
                jaxloss.info_nce,
                nt_xent_of,
                by_anchor,
                "anchors",
                "positives",
                temperature=TEMPERATURE,
            ),
            product_spec(jaxloss.info_nce, nt_xent_of, by_anchor, temperature=1.5),
        ),
        # Its accuracy is one half of that of clip.
        line=TWO_PAIRS._replace(label="angle between anchor and positive"),
    ),
    Claim(
        fn=jaxloss.siglip,
        domains={"first": domains.REAL, "second": domains.REAL},
        settings=(
            pair_spec(
                jaxloss.siglip,
                sigmoid_of,
                by_anchor,
                "first",
                "second",
                temperature=TEMPERATURE,
                bias=-4.0,
            ),
            product_spec(
                jaxloss.siglip, sigmoid_of, by_anchor, temperature=1.5, bias=-1.0
            ),
        ),
        accuracy=case_of_pairs(jaxloss.siglip, sigmoid_of, by_anchor, bias=0.0),
        line=TWO_PAIRS,
        drawn=tuple(
            {"temperature": TEMPERATURE, "bias": b} for b in (-10.0, -5.0, 0.0)
        ),
    ),
]
