"""Claims of the self-supervised losses of components: statistics in 60 digits."""

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.embedding.formulas import (
    absolute,
    dot,
    length,
    of_units,
    transposed,
    turned,
    unit,
)
from jaxloss.claims.embedding.in_batch import HALF_TURN, OfBatch, case, weighted
from jaxloss.testing import Symmetry
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

# --- formulas: the sum over the components with the weights 1, 2, ... ----------------


def deviations(x, where):
    """Of each component, a row over the batch; 0 where masked."""
    count = sum(where) or 1
    rows = []
    for column in transposed(x):
        mean = mp.fsum(v for v, keep in zip(column, where, strict=True) if keep) / count
        pairs = zip(column, where, strict=True)
        rows.append([v - mean if keep else mp.mpf(0) for v, keep in pairs])
    return rows


def at_columns(formula):
    """A formula of examples, from one of rows of deviations: slopes are transposed."""

    def of_examples(found):
        if isinstance(found, tuple):
            return tuple(map(of_examples, found))
        return transposed(found) if isinstance(found, list) else found

    return lambda *args, **params: of_examples(formula(*args, **params))


def squares(matrix, weight, diagonal):
    """The weighted sum of the squares off the diagonal, and of those that are given for
    it; and its derivative in each entry."""
    total, pull = mp.mpf(0), []
    for i, row in enumerate(matrix):
        w = [(1 + i) * (mp.mpf(1) if i == j else weight) for j in range(len(row))]
        parts = [diagonal(s) if i == j else s for j, s in enumerate(row)]
        total += mp.fsum(v * s**2 for v, s in zip(w, parts, strict=True))
        pull.append([2 * v * s for v, s in zip(w, parts, strict=True)])
    return total, pull


def correlations(x, y, where):
    a, b = deviations(x, where), deviations(y, where)
    return a, b, of_units(list(map(unit, a)), list(map(unit, b)), 1)


def barlow_twins(x, y, where, redundancy):
    *_, c = correlations(x, y, where)
    return squares(c, mp.mpf(redundancy), lambda s: s - 1)[0]


def barlow_twins_slopes(x, y, where, redundancy):
    a, b, c = correlations(x, y, where)
    _, pull = squares(c, mp.mpf(redundancy), lambda s: s - 1)
    return turned(a, b, pull, 1), turned(b, a, transposed(pull), 1)


def barlow_twins_cancels(x, y, where, redundancy):
    """A correlation off the diagonal is rounded in proportion to 1, not to itself."""
    *_, c = correlations(x, y, where)
    _, pull = squares(c, mp.mpf(redundancy), lambda s: mp.mpf(0))
    return mp.fsum(abs(s) for row in pull for s in row)


def barlow_twins_slopes_cancel(x, y, where, redundancy):
    """That moves its slope too; and a slope in it moves along a row of length 1."""
    a, b, c = correlations(x, y, where)
    _, pull = squares(c, mp.mpf(redundancy), lambda s: s - 1)
    slack = [
        [abs(s) + 2 * (1 + i) * redundancy * (i != j) for j, s in enumerate(row)]
        for i, row in enumerate(pull)
    ]
    far = lambda rows, sizes: [
        [mp.fsum(s) / (length(row) or mp.inf)] * len(row)
        for row, s in zip(rows, sizes, strict=True)
    ]
    return far(a, slack), far(b, transposed(slack))


def variance_hinge(x, where, target):
    free = sum(where) - 1
    if free < 1:
        return mp.mpf(0)
    short = [target - length(a) / mp.sqrt(free) for a in deviations(x, where)]
    return mp.fsum((1 + i) * max(s, 0) for i, s in enumerate(short))


def variance_hinge_slopes(x, where, target):
    root = mp.sqrt(max(sum(where) - 1, 1))
    found = []
    for i, a in enumerate(deviations(x, where)):
        pulls = length(a) / root < target
        found.append([-(1 + i) * pulls * v / root for v in unit(a)])
    return found


def covariances(x, where):
    a, free = deviations(x, where), max(sum(where) - 1, 1)
    return a, of_units(a, a, free), free


def covariance_penalty(x, where):
    _, c, _ = covariances(x, where)
    return squares(c, mp.mpf(1), lambda s: mp.mpf(0))[0]


def symmetric(pull):
    return [
        [s + t for s, t in zip(*rows, strict=True)]
        for rows in zip(pull, transposed(pull), strict=True)
    ]


def covariance_penalty_slopes(x, where):
    a, c, free = covariances(x, where)
    _, pull = squares(c, mp.mpf(1), lambda s: mp.mpf(0))
    columns = transposed(a)
    return [[dot(row, v) / free for v in columns] for row in symmetric(pull)]


def sizes(x, where):
    """What each covariance is rounded in proportion to."""
    a, _, free = covariances(x, where)
    lengths = [length(row) for row in a]
    return [[s * t / free for t in lengths] for s in lengths]


def covariance_penalty_cancels(x, where):
    _, c, _ = covariances(x, where)
    _, pull = squares(c, mp.mpf(1), lambda s: mp.mpf(0))
    return mp.fsum(map(dot, absolute(pull), sizes(x, where)))


def covariance_penalty_slopes_cancel(x, where):
    a, _, free = covariances(x, where)
    _, most = squares(sizes(x, where), mp.mpf(1), lambda s: mp.mpf(0))
    lengths = [length(row) for row in a]
    return [[dot(row, lengths) / free] * len(where) for row in symmetric(most)]


def lifted(formula, *event_ndims):
    return common.exact_rows(*event_ndims)(at_columns(formula))


# --- samples and edges ---------------------------------------------------------------


def padding(rng, shape):
    """Of five examples, one is masked in half of the batches.

    Not more: two examples have a correlation of 1 or -1, and derivatives of 0.
    """
    return rng.permuted(np.arange(5) >= rng.integers(2, size=(*shape, 1)), axis=-1)


def two_views(rng, shape):
    """Five examples of three components in views that have to do with each other."""
    x, noise = rng.normal(size=(2, *shape, 5, 3))
    return x + 1, 0.5 * x + noise, padding(rng, shape)


def one_view(rng, shape):
    """Deviations of both sides of 1."""
    return 0.9 * rng.normal(size=(*shape, 5, 3)) + 1, padding(rng, shape)


SIGNS = np.array([[1, 1, 1], [-1, 1, -1], [7, 7, 7], [1, -1, -1], [-1, -1, 1]])
EVERYONE, SOME = [True] * 5, [True, True, False, True, True]
ONE, NONE = [False, False, True, False, False], [False] * 5


def batches(dtype):
    """Uncorrelated but for the third example, ordinary, constant in one component or in
    all, with components of very different sizes, and far from 0."""
    x = np.random.default_rng(1).normal(size=(5, 3))
    # The second derivative, of size 1 / low^2, is still a number.
    top, low = common.big(dtype) / 16, 64 * np.sqrt(common.tiny(dtype))
    partly, constant = x * [1, 0, 1] + [0, 0.1, 0], np.full((5, 3), 0.1)
    return [SIGNS, x, partly, constant, x * [top, 1, low], x + 300]


def view_edges(dtype):
    """Each kind with itself and with an ordinary one, opposite, with components
    exchanged; one example, none."""
    every = batches(dtype)
    ordinary = every[1]
    found = [(x, x, where) for x in every for where in (EVERYONE, SOME)]
    found += [(x, ordinary[::-1], SOME) for x in every]
    found += [(ordinary, -x, SOME) for x in every]
    found += [(x, x[:, ::-1], EVERYONE) for x in every[:2]]
    found += [(ordinary, ordinary, where) for where in (ONE, NONE)]
    for x, y, where in found:
        yield x[None], y[None], np.array([where])


def hinge_edges(dtype):
    for x in batches(dtype):
        for where in (EVERYONE, SOME):
            yield 0.5 * x[None], np.array([where])
    for where in (ONE, NONE):
        yield batches(dtype)[1][None], np.array([where])


def covariance_edges(dtype):
    """The same, up to the fourth root of the largest number."""
    top = float(np.sqrt(common.root(dtype))) / 16
    for x, where in hinge_edges(dtype):
        yield np.clip(x, -top, top), where


# --- what changes nothing ------------------------------------------------------------


def affine(rng, x, y, where):
    """Every component on another scale and from another origin."""

    def move(x):
        size = (len(x), 1, x.shape[2])
        factor, step = 2.0 ** rng.integers(-3, 4, size), rng.integers(-2, 3, size)
        return factor * (x + step)

    return move(x), move(y), where


# --- laws ----------------------------------------------------------------------------


def bad_calls(name, *arguments):
    x, count = np.ones((3, 4)), len(arguments)
    call = lambda argument, *args, **kw: common.refused(name, argument, *args, **kw)
    every, first = [x] * count, arguments[0]
    yield call(first, x.astype(int), *every[1:], error=TypeError)
    yield call(first, *[np.ones(3)] * count)
    yield call(first, *[np.ones((3, 0))] * count)
    yield call("where", *every, where=np.ones((3, 4), bool))
    yield call("where", *every, where=np.ones(3), error=TypeError)
    for second in arguments[1:]:
        yield call(second, x, x.astype(int), error=TypeError)
        yield call(second, x, x[:2])
        yield call(second, x, x[:, :1])


def bad_numbers(name, argument, count):
    args = [np.ones((3, 4))] * count
    bad = lambda value, **kw: common.refused(
        name, argument, *args, **{argument: value}, **kw
    )
    return bad(-0.1), bad(np.ones(2)), bad("high", error=TypeError)


def of_components(fn, params, **claims):
    setting = ", ".join(f"{key}={value}" for key, value in params.items())
    return OfBatch(
        name=f"{fn.__name__}({setting})",
        fn=fn,
        params=params,
        keywords=("where",),
        event_ndim=2,
        **claims,
    )


def of_views(redundancy):
    name = "barlow_twins"
    return of_components(
        jaxloss.barlow_twins,
        {"redundancy": redundancy},
        sample=two_views,
        differentiable=(0, 1),
        reference=lifted(barlow_twins, 2, 2, 1),
        cancels=lifted(barlow_twins_cancels, 2, 2, 1),
        gradient=lifted(barlow_twins_slopes, 2, 2, 1),
        gradient_cancels=lifted(barlow_twins_slopes_cancel, 2, 2, 1),
        symmetries=(
            Symmetry("affine maps of the components", affine),
            common.flip(0, 1),
            common.permutation(0, 1, 2),
        ),
        extremes=view_edges,
        bad_calls=(
            *bad_calls(name, "first", "second"),
            *bad_numbers(name, "redundancy", 2),
        ),
    )


def hinge(target):
    name = "variance_hinge"
    return of_components(
        jaxloss.variance_hinge,
        {"target": target},
        sample=one_view,
        smooth=False,
        reference=lifted(variance_hinge, 2, 1),
        gradient=lifted(variance_hinge_slopes, 2, 1),
        symmetries=(common.shift(0), common.flip(0), common.permutation(0, 1)),
        extremes=hinge_edges,
        bad_calls=(*bad_calls(name, "embeddings"), *bad_numbers(name, "target", 1)),
    )


def penalty():
    name = "covariance_penalty"
    return of_components(
        jaxloss.covariance_penalty,
        {},
        sample=one_view,
        reference=lifted(covariance_penalty, 2, 1),
        cancels=lifted(covariance_penalty_cancels, 2, 1),
        gradient=lifted(covariance_penalty_slopes, 2, 1),
        gradient_cancels=lifted(covariance_penalty_slopes_cancel, 2, 1),
        symmetries=(
            common.shift(0),
            common.scale(4, 0),
            common.flip(0),
            common.permutation(0, 1),
        ),
        extremes=covariance_edges,
        bad_calls=tuple(bad_calls(name, "embeddings")),
    )


# --- accuracy: of four examples of two components, of which the first moves ----------

ALL = [1, 1, 1, 1]


def batch(first, rest):
    return jnp.stack([first, rest], axis=-1)


def examples(first, rest):
    return transposed([first, rest])


def components():
    """Ordinary; of different scales; far from 0; one nearly constant."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 2, 4))
    x[1] *= np.array([[1e15], [1e-3]])
    x[2] *= np.array([[1e-15], [30.0]])
    x[3] += np.array([[40.0], [-7.0]])
    x[4, 1] = x[4, 0] + 0.01 * x[4, 1]
    x[5, 0] = 1 + 1e-3 * x[5, 0]
    return x


def columns_of_views():
    x = components()
    y = np.random.default_rng(1).normal(size=x.shape)
    near = [3, 5]
    y[near] = x[near] * (1 + 1e-3 * y[near])
    weights = np.array([0.005, 0.3, 1.0, 0.005, 0.05, 0.0])
    return x[:, 0], x[:, 1], y[:, 0], y[:, 1], weights


def columns_of_deviations():
    return *0.5 * np.swapaxes(components(), 0, 1), np.array([1, 1, 2, 25, 0.7, 0.01])


def small_columns():
    x = components()
    x[1:3] = np.random.default_rng(2).normal(size=(2, 2, 4)) * [[[1e4], [1e-5]]]
    return x[:, 0], x[:, 1]


def of_twins(first, rest, other, others, redundancy):
    views = batch(first, rest), batch(other, others)
    return weighted(jaxloss.barlow_twins(*views, redundancy=redundancy[:, None]))


def formula_of_twins(first, rest, other, others, redundancy):
    views = examples(first, rest), examples(other, others)
    return barlow_twins(*views, ALL, redundancy)


def of_hinges(first, rest, target):
    losses = jaxloss.variance_hinge(batch(first, rest), target=target[:, None])
    return weighted(losses)


def of_penalties(first, rest):
    return weighted(jaxloss.covariance_penalty(batch(first, rest)))


TWINS = of_twins, formula_of_twins, columns_of_views()
OF_VIEWS = (
    case("barlow_twins in embeddings", *TWINS, (1, 2, 2)),
    case("barlow_twins in redundancy", *TWINS, (1, 1, 1), 4),
)
OF_DEVIATIONS = (
    case(
        "variance_hinge",
        of_hinges,
        lambda first, rest, target: variance_hinge(examples(first, rest), ALL, target),
        columns_of_deviations(),
        (1, 2, 2),
    ),
)
OF_PENALTIES = (
    case(
        "covariance_penalty",
        of_penalties,
        lambda first, rest: covariance_penalty(examples(first, rest), ALL),
        small_columns(),
        (2, 1, 1),
    ),
)

# --- lines ---------------------------------------------------------------------------

# Of variance 1 over four examples, and uncorrelated.
U, V = np.sqrt(0.75) * np.array([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]])


def turned_by(x, _):
    """Two components, of which the first is turned from U towards V."""
    return jnp.stack([jnp.cos(x) * U + jnp.sin(x) * V, V], axis=-1)


VIEWS = Line(
    "angle between a component of both views",
    HALF_TURN,
    lambda x, _: (turned_by(x, None), np.stack([U, V], axis=-1)),
)
DEVIATION = Line(
    "deviation of a component",
    (-2.5, 2.5),
    lambda x, _: (x * U[:, None],),
)
TWO_COMPONENTS = Line(
    "angle between two components", HALF_TURN, lambda x, _: (turned_by(x, None),)
)

# --- claims --------------------------------------------------------------------------

CLAIMS = [
    Claim(
        fn=jaxloss.barlow_twins,
        domains={"first": domains.REAL, "second": domains.REAL},
        settings=(of_views(0.005),),
        accuracy=OF_VIEWS,
        line=VIEWS,
        drawn=tuple({"redundancy": x} for x in (0.005, 0.2, 1.0)),
    ),
    Claim(
        fn=jaxloss.variance_hinge,
        domains={"embeddings": domains.REAL},
        settings=(hinge(1.0),),
        accuracy=OF_DEVIATIONS,
        line=DEVIATION,
        drawn=tuple({"target": x} for x in (0.5, 1.0, 2.0)),
    ),
    Claim(
        fn=jaxloss.covariance_penalty,
        domains={"embeddings": domains.REAL},
        settings=(penalty(),),
        accuracy=OF_PENALTIES,
        line=TWO_COMPONENTS,
    ),
]
