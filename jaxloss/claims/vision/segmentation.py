"""Claims of the losses of masks."""

import functools

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss import stable
from jaxloss.claims import common, domains
from jaxloss.testing import LossSpec, exact
from jaxloss.testing.accuracy import Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

KEYWORDS = ("complements", "where")


def masks(*size, hard):
    """Probabilities, targets, complements that are not 1 - p; and what counts."""

    def sample(rng, shape):
        p, t, q = rng.uniform(0.05, 0.95, size=(3, *shape, *size))
        t = rng.integers(0, 2, size=t.shape) if hard else t
        return p, t, q, rng.uniform(size=p.shape) < 0.8

    return sample


def refused_masks(loss, p, axis):
    """What every loss of masks refuses, of probabilities of two axes."""
    t = np.zeros(p.shape, int)
    refused = lambda argument, *args, **kw: common.refused(
        loss, argument, *args, **{"axis": axis, **kw}
    )
    kinds = {"error": TypeError}
    return (
        refused("targets", p, t[:1]),
        refused("targets", p, t[0]),
        refused("targets", p, "mask", **kinds),
        refused("probabilities", t, t, **kinds),
        refused("complements", p, t, complements=p[:1]),
        refused("complements", p, t, complements=t, **kinds),
        refused("where", p, t, where=t, **kinds),
        refused("where", p, t, where=t[:1] == 0),
        refused("axis", p, t, axis=2),
        refused("axis", p, t, axis=(0, -2)),
        refused("axis", p, t, axis=None, **kinds),
        refused("smooth", p, t, smooth=-1.0),
        refused("smooth", p, t, smooth="none", **kinds),
    )


# --- one mask at a time ------------------------------------------------------------
#
# 1 - (hit TP + s) / (hit TP + alpha FP + beta FN + s)

# One minus a ratio of which 1e-308 is missing.
many_digits = exact.digits(700)


@many_digits
def overlap(p, t, q, where, *, hit=1, alpha=1, beta=1, smooth):
    rows = list(zip(p, t, q, where, strict=True))
    tp = mp.fsum(m * x * y for x, y, z, m in rows)
    fp = mp.fsum(m * x * (1 - y) for x, y, z, m in rows)
    fn = mp.fsum(m * z * y for x, y, z, m in rows)
    whole = hit * tp + alpha * fp + beta * fn + smooth
    return 1 - (hit * tp + smooth) / whole if whole else mp.mpf(0)


def overlap_slopes(p, t, q, where, *, hit=1, alpha=1, beta=1, smooth):
    rows = list(zip(p, t, q, where, strict=True))
    part = mp.fsum(m * hit * x * y for x, y, z, m in rows) + smooth
    rest = mp.fsum(m * (alpha * x * (1 - y) + beta * z * y) for x, y, z, m in rows)
    whole = part + rest or mp.inf
    good, bad = part / whole**2, rest / whole**2
    return (
        [m * (alpha * (1 - y) * good - hit * y * bad) for x, y, z, m in rows],
        [m * ((beta * z - alpha * x) * good - hit * x * bad) for x, y, z, m in rows],
        [m * beta * y * good for x, y, z, m in rows],
    )


def edge_masks(low):
    """Perfect, all wrong, empty on either side and on both, nearly empty, certain."""
    near = 1 - 2.0**-10
    rows = (
        ([1, 1, 0, 0], [1, 1, 0, 0]),
        ([0, 0, 1, 1], [1, 1, 0, 0]),
        ([0, 0, 0, 0], [0, 0, 0, 0]),
        ([1, 0.5, 0, 0], [0, 0, 0, 0]),
        ([low, low, 2 * low, low], [0, 0, 0, 0]),
        ([1, 1, 1, 1], [1, 1, 1, 1]),
        ([0, 0, 0, 0], [1, 1, 1, 1]),
        ([near, 1, 1 - near, low], [1, 1, 0, 0]),
    )
    p, t = (np.array(side, float) for side in zip(*rows, strict=True))
    return p, t


# Of an empty target the second derivatives, of size 1 / low^2, are still numbers.
LOW = 2.0**-40


def edges(*, hard):
    """With complements, of which that of a rounded 1 is not 0; with everything
    counted, half of it and nothing."""

    def at(dtype):
        p, t = edge_masks(64 * common.tiny(dtype) if hard else LOW)
        q = np.where((p == 1) & (t == 1), 2.0**-14, 1 - p)
        t = t.astype(int) if hard else t
        half = np.broadcast_to(np.arange(4) % 2 == 0, p.shape)
        return [(p, t, q, where) for where in (half | True, half, half & False)]

    return at


def of_overlap(fn, *, hard, hit=1, bad_calls=(), **params):
    """The loss in all its arguments that are floating: hard masks are integers."""
    setting = ", ".join(f"{k}={v}" for k, v in params.items())
    formula = common.exact_rows(1, 1, 1, 1)
    slopes = formula(functools.partial(overlap_slopes, hit=hit))
    in_p_and_q = lambda *args, **kw: slopes(*args, **kw)[::2]
    return LossSpec(
        name=f"{fn.__name__}({setting})",
        fn=fn,
        params=params,
        static={"axis": -1},
        keywords=KEYWORDS,
        sample=masks(4, hard=hard),
        event_ndim=1,
        differentiable=(0, 2) if hard else (0, 1, 2),
        reference=formula(functools.partial(overlap, hit=hit)),
        gradient=in_p_and_q if hard else slopes,
        symmetries=(common.permutation(0, 1, 2, 3),),
        extremes=edges(hard=hard),
        bad_calls=(
            *refused_masks(fn.__name__, np.full((2, 4), 0.5), axis=-1),
            *bad_calls,
        ),
    )


def refused_weights():
    p, t = np.full((2, 4), 0.5), np.zeros((2, 4), int)
    call = functools.partial(common.refused, "tversky")
    return (
        call("alpha", p, t, axis=-1, alpha=-0.1),
        call("alpha", p, t, axis=-1, alpha=np.ones(4)),
        call("beta", p, t, axis=-1, beta=-0.1),
        call("beta", p, t, axis=-1, beta=np.ones(4)),
    )


# --- several classes ---------------------------------------------------------------


def class_counts(p, t, q, where):
    """For each class (size, TP, FP, FN) of lists of pixels, each a list of classes."""
    found = []
    for c in range(len(p[0])):
        rows = [
            tuple(x[c] for x in pixel) for pixel in zip(p, t, q, where, strict=True)
        ]
        terms = [(m * y, m * x * y, m * x * (1 - y), m * z * y) for x, y, z, m in rows]
        found.append([mp.fsum(column) for column in zip(*terms, strict=True)])
    return found


@many_digits
def generalized(p, t, q, where, smooth):
    """With the published weights: 1 / n^2, the largest of them where n is 0."""
    counts = class_counts(p, t, q, where)
    largest = max((1 / n**2 for n, *_ in counts if n), default=mp.mpf(1))
    weights = [1 / n**2 if n else largest for n, *_ in counts]
    sides = list(zip(weights, counts, strict=True))
    hit = sum(2 * w * tp for w, (_, tp, _, _) in sides) + smooth * largest
    missed = sum(w * (fp + fn) for w, (_, _, fp, fn) in sides)
    return 1 - hit / (hit + missed)


@common.exact_rows(2, 2, 2, 2)
def generalized_gradient(p, t, q, where, *, smooth):
    """By the weights w = (n_min / n)^2: of each, what the loss gains by n_min and
    loses by n, and what it gains directly."""
    counts = class_counts(p, t, q, where)
    sizes, tp, fp, fn = zip(*counts, strict=True)
    every = range(len(sizes))
    least = min((n for n in sizes if n), default=mp.mpf(1))
    w = [(least / n) ** 2 if n else mp.mpf(1) for n in sizes]
    part = 2 * sum(w[c] * tp[c] for c in every) + smooth
    rest = sum(w[c] * (fp[c] + fn[c]) for c in every)
    good, bad = (side / (part + rest) ** 2 for side in (part, rest))
    pull = [
        2 * w[c] * ((fp[c] + fn[c]) * good - 2 * tp[c] * bad) * (n > 0)
        for c, n in enumerate(sizes)
    ]
    gain = sum(pull) / least / max(1, sizes.count(least))
    by_size = [(n == least) * gain - pull[c] / (n or 1) for c, n in enumerate(sizes)]
    found = [], [], []
    for x, y, z, m in zip(p, t, q, where, strict=True):
        u = [m[c] * w[c] for c in every]
        direct = [u[c] * ((z[c] - x[c]) * good - 2 * x[c] * bad) for c in every]
        found[0].append([u[c] * ((1 - y[c]) * good - 2 * y[c] * bad) for c in every])
        found[1].append([direct[c] + m[c] * by_size[c] for c in every])
        found[2].append([u[c] * y[c] * good for c in every])
    return found


def class_edges(dtype):
    """Perfect, all wrong, no class, absent classes missed or not, one rare class."""
    common_ones = tuple(side.reshape(-1, 2, 2) for side in edge_masks(LOW))
    rare = np.array([[[0.9, 0.2], [0.8, 0.1]]]), np.array([[[1.0, 0.0], [1.0, 0.02]]])
    for p, t in (common_ones, rare):
        keep = np.broadcast_to([[True, True], [False, True]], p.shape)
        yield from ((p, t, 1 - p, where) for where in (keep | True, keep, keep & False))


def refused_classes():
    p, t = np.full((2, 4), 0.5), np.zeros((2, 4), int)
    refused = functools.partial(common.refused, "generalized_dice", "class_axis", p, t)
    return (
        *refused_masks("generalized_dice", p, axis=0),
        refused(axis=1),
        refused(axis=(0, 1)),
        refused(axis=0, class_axis=2),
        refused(axis=0, class_axis="c", error=TypeError),
    )


generalized_dice = LossSpec(
    name="generalized_dice(smooth=0.5)",
    fn=jaxloss.generalized_dice,
    params={"smooth": 0.5},
    static={"axis": -2, "class_axis": -1},
    keywords=KEYWORDS,
    sample=masks(2, 2, hard=False),
    event_ndim=2,
    differentiable=(0, 1, 2),
    smooth=False,
    reference=common.exact_rows(2, 2, 2, 2)(generalized),
    gradient=generalized_gradient,
    symmetries=tuple(common.permutation(0, 1, 2, 3, axis=i) for i in (1, 2)),
    extremes=class_edges,
    bad_calls=refused_classes(),
)


# --- accuracy ----------------------------------------------------------------------

# Ordinary; nearly perfect; nearly all wrong; an empty and a full target.
LOGITS = np.array(
    [
        [0.3, -1.2, 2.0],
        [20.0, 20.0, -20.0],
        [12.0, 30.0, -19.0],
        [-20.0, -15.0, 17.0],
        [-3.0, -20.0, 0.2],
        [5.0, 20.0, 0.1],
    ]
)
HARD = np.array([[1.0, 1.0, 0.0]] * 4 + [[0.0] * 3, [1.0] * 3])
SOFT = np.random.default_rng(0).uniform(size=HARD.shape)
PROBABILITIES = np.array(
    [
        [0.3, 0.9, 0.2],
        [1.0, 1.0, 0.0],
        [0.999, 1.0, 1e-3],
        [0.0, 0.0, 1.0],
        [1e-6, 1e-5, 0.0],
        [1.0, 0.25, 1e-4],
    ]
)


def expit(x):
    return [1 / (1 + mp.exp(-v)) for v in x]


def overlap_by_logits(x, t, **params):
    q = expit([-v for v in x])
    return overlap(expit(x), t, q, [1] * len(x), **params)


def by_logits(loss):
    """The loss as a function of logits, through both sigmoids."""

    def fn(x, t, **params):
        p, q = stable.sigmoid(x), stable.sigmoid(-x)
        return loss(p, t, axis=-1, complements=q, **params)

    return fn


def case(name, **claims):
    return Case(name=name, bounds=(4, 5, 6), rowwise=True, **claims)


DICE_CASE = case(
    "dice in logits",
    fn=by_logits(jaxloss.dice),
    formula=functools.partial(overlap_by_logits, hit=2, smooth=0),
    columns=(LOGITS, HARD),
    fixed=(1,),
    halves=False,  # where a sigmoid is as exact as its logit
)
JACCARD_CASE = case(
    "in probabilities",
    static={"axis": -1},
    formula=lambda p, t: overlap(p, t, [1 - x for x in p], [1] * len(p), smooth=0),
    columns=(PROBABILITIES, HARD),
    fixed=(1,),
)
WEIGHTS = {"alpha": 0.25, "beta": 0.75, "smooth": 0.5}
TVERSKY_CASE = case(
    "tversky in logits, soft targets",
    fn=by_logits(jaxloss.tversky),
    static=WEIGHTS,
    formula=functools.partial(overlap_by_logits, **WEIGHTS),
    columns=(LOGITS, SOFT),
    halves=False,
)

# Two pixels of two classes, one class nearly absent from the first row's prediction;
# nearly perfect, with a class three times as frequent; one class absent; ordinary.
PIXELS = np.array(
    [
        [20.0, 0.0, 18.0, 0.5],
        [20.0, 0.0, 0.0, 20.0],
        [20.0, 0.0, 0.0, -1.0],
        [0.3, -1.2, 2.0, -0.4],
    ]
)
ONE_HOT = np.array([[1, 0, 0, 1], [1, 0, 0.5, 0.5], [1, 0, 1, 0], [1, 0, 0, 1]], float)


def pixels(entries):
    """Pairs of neighbours: the classes of each pixel."""
    return [entries[i : i + 2] for i in range(0, len(entries), 2)]


def generalized_by_logits(x, t, smooth):
    p = [expit([a - b, b - a]) for a, b in pixels(x)]
    q = [pixel[::-1] for pixel in p]
    return generalized(p, pixels(t), q, [[1, 1]] * len(p), smooth)


def generalized_dice_by_logits(x, t, *, smooth):
    x, t = (side.reshape(len(side), -1, 2) for side in (x, t))
    p, q = stable.softmax(x), stable.softmax_complement(x)
    return jaxloss.generalized_dice(p, t, axis=1, complements=q, smooth=smooth)


GENERALIZED_CASE = case(
    "generalized_dice in logits",
    fn=generalized_dice_by_logits,
    formula=generalized_by_logits,
    columns=(PIXELS, ONE_HOT, np.array([0.0, 0.0, 0.25, 1.0])),
    names=("smooth",),
    halves=False,
)


# --- claims ------------------------------------------------------------------------


def mask(x):
    """Probabilities of 16 pixels and their mask, which has 4."""
    inside = jnp.arange(16) < 4
    return jnp.where(inside, x, 0.1), inside


def two_masks(x):
    """Those of the mask, and of what is not in it."""
    p, t = mask(x)
    return jnp.stack([p, 1 - p]), jnp.stack([t, ~t])


LINE = Line(
    "probability in the mask, 0.1 outside",
    (0, 1),
    lambda x, _: mask(x),
    keywords=(("axis", -1),),
)

CLAIMS = [
    Claim(
        fn=jaxloss.dice,
        domains=domains.MASKS,
        settings=(of_overlap(jaxloss.dice, hard=True, hit=2, smooth=1.0),),
        accuracy=(DICE_CASE,),
        line=LINE,
    ),
    Claim(
        fn=jaxloss.jaccard,
        domains=domains.MASKS,
        settings=(of_overlap(jaxloss.jaccard, hard=True, smooth=0.0),),
        accuracy=(JACCARD_CASE,),
        line=LINE,
    ),
    Claim(
        fn=jaxloss.tversky,
        domains=domains.MASKS,
        settings=(
            of_overlap(
                jaxloss.tversky,
                hard=False,
                alpha=0.3,
                beta=0.7,
                smooth=0.0,
                bad_calls=refused_weights(),
            ),
        ),
        accuracy=(TVERSKY_CASE,),
        line=LINE,
        drawn=tuple({"alpha": a, "beta": 1 - a} for a in (0.25, 0.5, 0.75)),
    ),
    Claim(
        fn=jaxloss.generalized_dice,
        domains=domains.MASKS,
        settings=(generalized_dice,),
        accuracy=(GENERALIZED_CASE,),
        line=LINE._replace(
            at=lambda x, _: two_masks(x), keywords=(("axis", -1), ("class_axis", 0))
        ),
    ),
]
