"""Claims of the losses between unaligned sequences, by counting every path."""

import functools
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.testing import LossSpec, Symmetry
from jaxloss.testing.accuracy import Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

FRAMES, CLASSES, LABELS = 4, 3, 2


# --- the formula: the sum over all K^T paths ---------------------------------------


@functools.cache
def paths(frames, classes, labels, blank):
    """The paths that are the labels once runs are merged and blanks removed."""
    every = itertools.product(range(classes), repeat=frames)
    merged = lambda path: tuple(c for c, _ in itertools.groupby(path) if c != blank)
    return [path for path in every if merged(path) == labels]


def softmax(row):
    largest = max(row)
    terms = [mp.exp(x - largest) for x in row]
    return [term / mp.fsum(terms) for term in terms]


def valid(values, where):
    return [v for v, w in zip(values, where, strict=True) if w]


def path_probabilities(logits, labels, blank):
    """The paths and the probability of each."""
    probs, chosen = [softmax(row) for row in logits], tuple(labels)
    found = paths(len(logits), len(logits[0]), chosen, blank) if logits else []
    product = lambda path: mp.fprod(p[c] for p, c in zip(probs, path, strict=True))
    return found, [product(path) for path in found]


def negative_log_likelihood(logits, labels, blank=0):
    """`-log` of the probability of all paths; infinity if there are none."""
    total = mp.fsum(path_probabilities(logits, labels, blank)[1])
    return -mp.log(total) if total else mp.inf


def softmax_and_posterior(logits, labels, blank=0):
    """The two terms of the gradient, each frame by frame; 0 where no path fits."""
    found, weights = path_probabilities(logits, labels, blank)
    occupied = [[mp.mpf(0) for _ in row] for row in logits]
    if not (total := mp.fsum(weights)):
        return occupied, occupied
    for path, weight in zip(found, weights, strict=True):
        for t, c in enumerate(path):
            occupied[t][c] += weight / total
    return [softmax(row) for row in logits], occupied


# --- laws --------------------------------------------------------------------------


def reference(blank):
    @common.exact_rows(2, 1, 1, 1)
    def value(logits, labels, where, real):
        frames, labels = valid(logits, where), valid(labels, real)
        return negative_log_likelihood(frames, labels, blank)

    return value


def by_frame(blank, combine):
    """`combine(softmax, posterior)` of each logit, and 0 in an invalid frame."""

    @common.exact_rows(2, 1, 1, 1)
    def evaluate(logits, labels, where, real):
        frames, labels = valid(logits, where), valid(labels, real)
        rows = zip(*softmax_and_posterior(frames, labels, blank), strict=True)
        zeros = [mp.mpf(0)] * CLASSES
        return [list(map(combine, *next(rows))) if w else zeros for w in where]

    return evaluate


def masked(blank):
    """Logits, labels, and masks in any pattern that leaves three frames, enough for
    two equal labels; what is masked is no class."""

    def sample(rng, shape):
        logits = 2 * rng.normal(size=(*shape, FRAMES, CLASSES))
        labels = rng.integers(1, CLASSES, size=(*shape, LABELS))
        where = np.arange(FRAMES) != rng.integers(FRAMES, size=shape)[..., None]
        real = rng.random(labels.shape) < 0.7
        return logits, np.where(real, (labels + blank) % CLASSES, -9), where, real

    return sample


def backwards(rng, *args):
    return tuple(np.flip(a, axis=1) for a in args)


def renamed(blank):
    """The two classes that are labels change names."""
    order = np.arange(CLASSES)
    order[order != blank] = order[order != blank][::-1]
    names = lambda labels: np.where(labels < 0, labels, order[np.maximum(labels, 0)])
    return lambda rng, logits, labels, *masks: (
        logits[..., order],
        names(labels),
        *masks,
    )


def edges(blank):
    """Equal logits, every size of lead of every class, and impossible classes."""

    def cases(dtype):
        y = np.array([[(blank + 1) % CLASSES, (blank + 2) % CLASSES]])
        top = common.root(dtype)  # sums of leads over frames are still finite
        lead = np.eye(CLASSES)[[y[0, 0], y[0, 0], blank, y[0, 1]]][None]
        # No two paths alike: of two that are at 1e154, rounding would decide.
        some = np.random.default_rng(0).normal(size=lead.shape)
        never = np.where(np.arange(CLASSES) == blank, -np.inf, some)
        logits = [0 * lead, 1e4 + some, never, 7.5 * lead + some]
        logits += [size * x for size in (1e4, top) for x in (lead, some, -some)]
        masks = np.ones((1, FRAMES), bool), np.ones((1, LABELS), bool)
        return [(x, y, *masks) for x in logits]

    return cases


def refused(name):
    """Arguments that are not a sequence, a mask or a blank."""
    x, y = np.ones((5, FRAMES, CLASSES)), np.ones((5, LABELS), int)
    refuse = functools.partial(common.refused, name)
    return (
        refuse("logits", x.astype(int), y, error=TypeError),
        refuse("logits", x[0, 0], y[0]),
        refuse("labels", x, y.astype(float), error=TypeError),
        refuse("labels", x, y[:4]),
        refuse("labels", x, y[0]),
        refuse("labels", x[0], y[0, 0]),
        refuse("where", x, y, where=np.ones((5, FRAMES)), error=TypeError),
        refuse("where", x, y, where=np.ones((5, LABELS), bool)),
        refuse("label_where", x, y, label_where=y, error=TypeError),
        refuse("label_where", x, y, label_where=np.ones((5, 1), bool)),
        refuse("blank", x, y, blank=CLASSES),
        refuse("blank", x, y, blank=-1),
        refuse("blank", x, y, blank=True, error=TypeError),
        refuse("blank", x, y, blank=0.0, error=TypeError),
    )


class LossOfForward(LossSpec):
    """The claims of a loss, of the first of what the function returns."""

    def losses_in(self, returned):
        return returned[0]


def spec(fn, kind=LossSpec, *, blank, **static):
    return kind(
        name=f"{fn.__name__}(blank={blank}, masks)",
        fn=fn,
        static={"blank": blank, **static},
        keywords=("where", "label_where"),
        sample=masked(blank),
        event_ndim=2,
        reference=reference(blank),
        # Paths that share a probability of nearly 1 have logarithms of size log K.
        cancels=lambda logits, *_: np.full(len(logits), FRAMES * np.log(CLASSES)),
        gradient=by_frame(blank, lambda p, q: p - q),
        gradient_cancels=by_frame(blank, lambda p, q: p + q),
        ulps=16,  # a posterior is a product over frames of what logarithms differ by
        fill=1.0,
        symmetries=(
            common.shift(0),
            Symmetry("time that runs backwards", backwards),
            Symmetry("other names of the labels", renamed(blank)),
        ),
        extremes=edges(blank),
        bad_calls=refused(fn.__name__),
    )


# --- accuracy ----------------------------------------------------------------------

# Two classes, for differentiating in each logit in turn compiles a scan for each pair.


def frames_of(entries):
    return [entries[i : i + 2] for i in range(0, len(entries), 2)]


def flat_loss(x, y):
    return negative_log_likelihood(frames_of(x), list(map(int, y)))


def flat(combine):
    """`combine(softmax, posterior)` of each logit."""

    def evaluate(x, y):
        both = softmax_and_posterior(frames_of(x), list(map(int, y)))
        p, q = (itertools.chain.from_iterable(rows) for rows in both)
        return list(map(combine, p, q))

    return evaluate


def ctc_of_flat(x, y):
    return jaxloss.ctc(x.reshape(-1, 3, 2), y)


def two_classes():
    """Three frames, in which 6 of 8 paths are the label 1: ordinary, confident of it,
    confident of the blank, and tied."""
    x = np.random.default_rng(0).normal(size=(4, 6))
    x[1:3] += 6 * np.array([[0, 0, 0, 1, 0, 0], [1, 0, 1, 0, 1, 0]])
    x[3] = 0
    return x, np.ones((4, 1), int)


OF_TWO_CLASSES = Case(
    name="ctc",
    fn=ctc_of_flat,
    formula=flat_loss,
    columns=two_classes(),
    fixed=(1,),
    first=flat(lambda p, q: p - q),
    # An indicator that is 1 with probability p has the variance p (1 - p).
    second=flat(lambda p, q: p * (1 - p) - q * (1 - q)),
    terms=flat(lambda p, q: p * (1 - p) + q * (1 - q)),
    # The gradient of a confident frame is a difference of two numbers near 1.
    bounds=(2, 64, 4),
    conditioned=(True, True, False),
    rowwise=True,
    halves=False,  # the laws have them
)


# --- claims ------------------------------------------------------------------------


def in_all_frames(x):
    return jnp.zeros((4, 3), x.dtype).at[:, 1].set(x)


FORWARD: Any = jaxloss.ctc_forward  # its value is more than a loss

# At one setting, so that both run the same programs, compiled once.
CLAIMS = [
    Claim(
        fn=jaxloss.ctc,
        domains=domains.SEQUENCE,
        settings=(spec(jaxloss.ctc, blank=2, zero_infinity=False),),
        accuracy=(OF_TWO_CLASSES,),
        line=Line(
            "logit of the label in all 4 frames",
            (-6, 6),
            lambda x, _: (in_all_frames(x), np.array([1])),
        ),
    ),
    Claim(
        fn=FORWARD,
        domains=domains.SEQUENCE,
        settings=(spec(FORWARD, LossOfForward, blank=2),),
    ),
]
