"""Claims of the Lovász losses of masks."""

import functools

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.testing import LossSpec
from jaxloss.testing.accuracy import Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

PIXELS = 5

# --- the textbook: sets of wrong pixels, one pixel more at a time --------------------


def jaccard_of_mistakes(wrong, mask):
    """One minus intersection over union of a mask and of the prediction that is wrong
    in these pixels; 0 of two empty ones."""
    union = mask | wrong
    return 1 - mp.mpf(len(mask - wrong)) / len(union) if union else mp.mpf(0)


def added(errors, mask, counted):
    """What each pixel adds to the loss, when those of larger errors are wrong."""
    weights, wrong = [mp.mpf(0)] * len(errors), set()
    for i in sorted(counted, key=lambda i: -errors[i]):
        before = jaccard_of_mistakes(wrong, mask)
        wrong = wrong | {i}
        weights[i] = jaccard_of_mistakes(wrong, mask) - before
    return weights


def extended(error, x, t, where):
    """The errors, and the weights of those that count."""
    counted = {i for i, m in enumerate(where) if m}
    mask = {i for i in counted if t[i] == 1}
    errors = [error(*pair) for pair in zip(x, t, strict=True)]
    return errors, added(errors, mask, counted)


def value(error, x, t, where=None):
    errors, weights = extended(error, x, t, where or [1] * len(x))
    return mp.fsum(w * max(e, 0) for e, w in zip(errors, weights, strict=True))


def gradient(error, slope, x, t, where=None):
    errors, weights = extended(error, x, t, where or [1] * len(x))
    every = zip(errors, weights, x, t, strict=True)
    return [w * slope(a, b) if e > 0 else mp.mpf(0) for e, w, a, b in every]


def hinge_error(z, t):
    return 1 - (2 * t - 1) * z


def softmax_error(p, t):
    return abs(t - p)


SLOPES = {
    hinge_error: lambda z, t: 1 - 2 * t,
    softmax_error: lambda p, t: mp.sign(p - t),
}


# --- samples and edges -------------------------------------------------------------


def logits(rng, shape):
    """Logits of a few pixels, a mask, and what counts."""
    z = 2 * rng.normal(size=(*shape, PIXELS))
    return z, rng.integers(0, 2, size=z.shape), rng.uniform(size=z.shape) < 0.8


def probabilities(rng, shape):
    """Probabilities, masks as floating numbers, and what counts."""
    p = rng.uniform(0.05, 0.95, size=(*shape, PIXELS))
    t = rng.integers(0, 2, size=p.shape)
    return p, t.astype(float), rng.uniform(size=p.shape) < 0.8


# An empty and a full target, one pixel in it, all but one, and a half.
TARGETS = np.array(
    [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [1, 1, 0, 1], [1, 0, 1, 0]]
)


def edges(targets, *rows):
    """Each row of predictions with each target; with all of it counted, half of it,
    and nothing."""
    x = np.repeat(np.array(rows, float), len(targets), axis=0)
    t = np.tile(targets, (len(rows), 1))
    half = np.broadcast_to(np.arange(4) % 2 == 0, x.shape)
    return [(x, t, where) for where in (half | True, half, half & False)]


def edge_logits(dtype):
    """Ties, kinks, all right, all wrong, huge ones."""
    big = common.big(dtype)
    return edges(
        TARGETS,
        [0, 0, 0, 0],
        [1, -1, 1, -1],
        [2, 2, -2, -2],
        [-3, 3, -3, 3],
        [big, -big, -big, big],
        [1 - 2.0**-7, 1 + 2.0**-7, -1 + 2.0**-7, 0.5],
    )


def edge_probabilities(dtype):
    """Ties, corners, tiny errors."""
    tiny = common.tiny(dtype)
    return edges(
        TARGETS.astype(float),
        [0.5, 0.5, 0.5, 0.5],
        [0, 0, 0, 0],
        [1, 1, 1, 1],
        [0, 1, 0, 1],
        [1, 0, 0.25, 0.75],
        [tiny, 4 * tiny, tiny, 0.5],
        [1 - 2.0**-7, 1, 2.0**-7, 0],
    )


# --- what they refuse --------------------------------------------------------------


def refused(loss, first):
    x, t = np.full((2, 4), 0.5), np.zeros((2, 4), int)
    call = lambda argument, *args, **kw: common.refused(
        loss, argument, *args, **{"axis": -1, **kw}
    )
    kinds = {"error": TypeError}
    return (
        call("targets", x, t[:1]),
        call("targets", x, t[0]),
        call("targets", x, "mask", **kinds),
        call(first, t, t, **kinds),
        call("where", x, t, where=t, **kinds),
        call("where", x, t, where=t[:1] == 0),
        call("axis", x, t, axis=2),
        call("axis", x, t, axis=(0, -2)),
        call("axis", x, t, axis=None, **kinds),
    )


# --- claims ------------------------------------------------------------------------

ROWS = (1, 1, 1)


def of_loss(fn, error, sample, extremes, first, **claims):
    lift = common.exact_rows(*ROWS)
    return LossSpec(
        name=fn.__name__,
        fn=fn,
        static={"axis": -1},
        keywords=("where",),
        sample=sample,
        event_ndim=1,
        reference=lift(functools.partial(value, error)),
        gradient=lift(functools.partial(gradient, error, SLOPES[error])),
        curvature=lambda x, t, where: np.zeros((*x.shape, x.shape[-1])),
        smooth=False,
        extremes=extremes,
        convex=True,
        symmetries=(common.permutation(0, 1, 2),),
        bad_calls=refused(fn.__name__, first),
        **claims,
    )


HINGE = of_loss(
    jaxloss.lovasz_hinge,
    hinge_error,
    logits,
    edge_logits,
    "logits",
    minimiser=lambda t, where: 2.0 * (2 * t - 1),
)
SOFTMAX = of_loss(
    jaxloss.lovasz_softmax,
    softmax_error,
    probabilities,
    edge_probabilities,
    "probabilities",
    minimiser=lambda t, where: t,
)

# Errors of one row differ, in half precision too: no difference is across a tie.
RNG = np.random.default_rng(0)
ORDERS = np.stack([RNG.permutation(24) for _ in range(16)])
MASKS = (RNG.uniform(size=ORDERS.shape) < np.linspace(0, 1, 16)[:, None]).astype(float)
SIZES = np.array([0.0625, 0.25, 1.0, 16.0] * 4)[:, None]


def case(error, predictions):
    return Case(
        name="in " + ("logits" if error is hinge_error else "probabilities"),
        static={"axis": -1},
        formula=functools.partial(value, error),
        columns=(predictions, MASKS),
        fixed=(1,),
        bounds=(2, 2, 0),
    )


# Of the form (k + 1/3) s: an error is neither 0 nor that of another pixel.
IN_LOGITS = case(hinge_error, (2 * MASKS - 1) * (1 - SIZES * (ORDERS - 7.3)))
IN_PROBABILITIES = case(softmax_error, abs(MASKS - (ORDERS + 0.7) / 25))


def line(label, ends, outside):
    """16 pixels, of which 4 are in the mask and have the same prediction."""
    inside = jnp.arange(16) < 4
    at = lambda x, _: (jnp.where(inside, x, outside), inside)
    return Line(f"{label} in the mask, {outside} outside", ends, at, keywords=AXIS)


AXIS = (("axis", -1),)
CLAIMS = [
    Claim(
        fn=jaxloss.lovasz_hinge,
        domains={"logits": domains.REAL, "targets": domains.HARD},
        settings=(HINGE,),
        accuracy=(IN_LOGITS,),
        line=line("logit", (-3, 3), -0.5),
    ),
    Claim(
        fn=jaxloss.lovasz_softmax,
        domains={"probabilities": domains.PROBABILITIES, "targets": domains.HARD},
        settings=(SOFTMAX,),
        accuracy=(IN_PROBABILITIES,),
        line=line("probability", (0, 1), 0.1),
    ),
]
