"""Claims of the preference losses."""

import numpy as np

import jaxloss
from jaxloss.claims import domains
from jaxloss.claims.common import exact, refused, shift, swap
from jaxloss.testing import LossSpec, Symmetry, accuracy
from jaxloss.testing.accuracy import Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

ONES = np.ones(3)
NAMES = (
    "chosen_log_probs",
    "rejected_log_probs",
    "chosen_reference_log_probs",
    "rejected_reference_log_probs",
)


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def softplus(x):
    return max(x, 0) + mp.log1p(mp.exp(-abs(x)))


def bad_arrays(name, names, good=(), **params):
    """Other shapes, integers, strings: for each of the arrays."""
    arrays = [ONES] * len(names)
    for at, argument in enumerate(names):
        wrong = lambda x, at=at: [*arrays[:at], x, *arrays[at + 1 :], *good]
        yield refused(
            name, argument, *wrong(ONES.astype(int)), error=TypeError, **params
        )
        yield refused(name, argument, *wrong("three"), error=TypeError, **params)
        if at:
            yield refused(name, argument, *wrong(np.ones((3, 1))), **params)


def constant(number, length):
    """A column that is no argument of a case: in float32, as it is not rounded."""
    return np.full(length, number, np.float32)


def case(columns, *, names, fixed, **claims):
    return Case(
        columns=columns,
        names=names,
        fixed=fixed,
        conditioned=(True, True, True),
        bounds=(2, 2, 4),
        **claims,
    )


GAINS, BETAS = accuracy.pairs(accuracy.line(-60, 60, 25), np.array([0.01, 0.1, 1.0]))
REFERENCE = constant(-7, len(GAINS))

# --- pairs ---------------------------------------------------------------------------


def log_probs(count):
    """Log-probabilities of `count` kinds of answers of a few tokens."""

    def sample(rng, shape):
        return tuple(-np.abs(5 * rng.normal(size=shape)) for _ in range(count))

    return sample


def gains(dtype):
    """Gains of every size, either way, and none."""
    steps = [0.0, 1e-6, 0.3, 7.0, 90.0, 3e3]
    w, v = (-x.ravel() for x in np.meshgrid(steps, steps))
    return [(w, v, np.zeros_like(w), np.zeros_like(w)), (w, v, v, w)]


def of_gain(name, value, slope, beta, **claims):
    """A loss of the gain of one answer over the other: its value and its slope."""
    delta = lambda w, v, w0, v0: (w - w0) - (v - v0)

    @exact
    def reference(w, v, w0, v0, beta):
        return value(delta(w, v, w0, v0), beta)

    @exact
    def gradient(w, v, w0, v0, beta):
        by_gain = slope(delta(w, v, w0, v0), beta)
        return by_gain, -by_gain, -by_gain, by_gain

    return LossSpec(
        name=f"{name}(beta={beta})",
        fn=getattr(jaxloss, name),
        params={"beta": beta},
        sample=log_probs(4),
        differentiable=(0, 1, 2, 3),
        reference=reference,
        gradient=gradient,
        extremes=gains,
        convex=True,
        symmetries=(shift(0, 1), shift(0, 2), shift(1, 3), swap(1, 2)),
        bad_calls=(
            *bad_arrays(name, NAMES),
            refused(name, "beta", ONES, ONES, ONES, ONES, beta=-1.0),
            refused(name, "beta", ONES, ONES, ONES, ONES, beta=np.ones(2)),
        ),
        **claims,
    )


def dpo(beta):
    return of_gain(
        "dpo",
        lambda gain, beta: softplus(-beta * gain),
        lambda gain, beta: -beta * sigmoid(-beta * gain),
        beta,
    )


def ipo(beta):
    return of_gain(
        "ipo",
        lambda gain, beta: (gain - 1 / (2 * mp.mpf(beta))) ** 2,
        lambda gain, beta: 2 * (gain - 1 / (2 * mp.mpf(beta))),
        beta,
        minimiser=lambda v, w0, v0, beta: w0 + (v - v0) + 0.5 / beta,
    )


def in_chosen(**claims):
    columns = (GAINS, REFERENCE, REFERENCE, REFERENCE, BETAS)
    return case(columns, names=("beta",), fixed=(1, 2, 3), **claims)


@exact
def simpo_of(w, v, beta, gamma):
    return softplus(gamma - beta * (w - v))


@exact
def simpo_slopes(w, v, beta, gamma):
    slope = beta * sigmoid(gamma - beta * (w - v))
    return -slope, slope


def simpo(beta, gamma):
    params = {"beta": beta, "gamma": gamma}
    return LossSpec(
        name=f"simpo(beta={beta}, gamma={gamma})",
        fn=jaxloss.simpo,
        params=params,
        sample=log_probs(2),
        differentiable=(0, 1),
        reference=simpo_of,
        gradient=simpo_slopes,
        extremes=lambda dtype: [args[:2] for args in gains(dtype)],
        convex=True,
        symmetries=(shift(0, 1),),
        bad_calls=(
            *bad_arrays("simpo", NAMES[:2], **params),
            refused("simpo", "beta", ONES, ONES, beta=-1.0, gamma=0.0),
            refused(
                "simpo", "gamma", ONES, ONES, beta=1.0, gamma="high", error=TypeError
            ),
        ),
    )


# --- single answers ------------------------------------------------------------------


def answers(rng, shape):
    own, reference = log_probs(2)(rng, shape)
    return own, reference, rng.random(shape) < 0.5


@exact
def kto_of(own, reference, good, beta, baseline):
    gain = own - reference - baseline
    return sigmoid(beta * (-gain if good else gain))


@exact
def kto_slopes(own, reference, good, beta, baseline):
    gain = own - reference - baseline
    s = sigmoid(beta * gain)
    slope = (-beta if good else beta) * s * sigmoid(-beta * gain)
    return slope, -slope


def kto(beta, baseline):
    params = {"beta": beta, "baseline": baseline}
    edges = lambda dtype: [
        (own, reference, np.full(own.shape, good))
        for own, reference, *_ in gains(dtype)
        for good in (True, False)
    ]
    good = np.ones(3, bool)
    return LossSpec(
        name=f"kto(beta={beta}, baseline={baseline})",
        fn=jaxloss.kto,
        params=params,
        sample=answers,
        differentiable=(0, 1),
        reference=kto_of,
        gradient=kto_slopes,
        extremes=edges,
        symmetries=(
            shift(0, 1),
            Symmetry(
                "the other verdict",
                lambda rng, own, reference, good: (own, reference, ~good),
                lambda loss: 1 - loss,
            ),
        ),
        bad_calls=(
            *bad_arrays("kto", ("log_probs", "reference_log_probs"), [good], **params),
            refused("kto", "desirable", ONES, ONES, ONES, error=TypeError, **params),
            refused("kto", "desirable", ONES, ONES, good[:2], **params),
            refused("kto", "beta", ONES, ONES, good, beta=-1.0, baseline=0.0),
            refused("kto", "baseline", ONES, ONES, good, baseline=np.ones(2)),
        ),
    )


# --- odds ----------------------------------------------------------------------------


def log_odds(p):
    return p - mp.log(-mp.expm1(p))


@exact
def orpo_of(w, v, beta):
    return beta * softplus(log_odds(v) - log_odds(w)) - w


@exact
def orpo_slopes(w, v, beta):
    wrong = beta * sigmoid(log_odds(v) - log_odds(w))
    return -1 + wrong / mp.expm1(w), -wrong / mp.expm1(v)


MEANS = accuracy.pairs(
    -np.geomspace(1e-5, 60, 14) * (1 + 2.0**-13), -np.geomspace(1e-3, 30, 7)
)


def in_mean(argument, name):
    columns = (*MEANS, constant(0.1, len(MEANS[0])))
    return case(
        columns, names=("beta",), fixed=(2,), argument=argument, name=name, halves=False
    )


def certain_and_not(dtype):
    """Means of nearly certain tokens, of ordinary and of impossible ones."""
    steps = [1e-4, 0.3, 0.7, 7.0, 80.0]
    w, v = (-x.ravel() for x in np.meshgrid(steps, steps))
    return [(w, v)]


def orpo(beta):
    return LossSpec(
        name=f"orpo(beta={beta})",
        fn=jaxloss.orpo,
        params={"beta": beta},
        sample=log_probs(2),
        differentiable=(0, 1),
        reference=orpo_of,
        gradient=orpo_slopes,
        extremes=certain_and_not,
        fill=-1.0,
        bad_calls=(
            *bad_arrays("orpo", NAMES[:2]),
            refused("orpo", "beta", -ONES, -ONES, beta=-1.0),
        ),
    )


# --- claims --------------------------------------------------------------------------

GAIN = Line("gain, chosen − rejected", (-12, 12), lambda x, _: (x, 0 * x, 0 * x, 0 * x))

CLAIMS = [
    Claim(
        fn=jaxloss.dpo,
        domains=domains.PREFERENCE,
        settings=(dpo(0.1), dpo(1.0)),
        accuracy=(in_chosen(),),
        line=GAIN,
    ),
    Claim(
        fn=jaxloss.ipo,
        domains=domains.PREFERENCE,
        settings=(ipo(0.25),),
        accuracy=(in_chosen(halves=False),),
        line=GAIN,
    ),
    Claim(
        fn=jaxloss.simpo,
        domains=domains.ANSWERS,
        settings=(simpo(2.0, 1.0),),
        accuracy=(
            case(
                (GAINS, constant(-2, len(GAINS)), BETAS, constant(1, len(GAINS))),
                names=("beta", "gamma"),
                fixed=(1, 3),
                halves=False,
            ),
        ),
        line=Line(
            "mean log-probability, chosen − rejected",
            (-2, 2),
            lambda x, _: (x - 2, 0 * x - 2),
        ),
        drawn=tuple(
            {"beta": b, "gamma": g} for b, g in ((2.0, 0.5), (2.0, 1.5), (5.0, 1.5))
        ),
    ),
    Claim(
        fn=jaxloss.kto,
        domains={
            "log_probs": domains.LOG_PROBS,
            "reference_log_probs": domains.LOG_PROBS,
        },
        settings=(kto(0.1, 0.5),),
        accuracy=(
            case(
                (GAINS, REFERENCE, REFERENCE < 0, BETAS, constant(0, len(GAINS))),
                names=("beta", "baseline"),
                fixed=(1, 2, 4),
                halves=False,
            ),
        ),
        line=Line(
            "gain over the reference",
            (-30, 30),
            lambda x, good: (x, 0 * x, good),
            (("good", True), ("bad", False)),
        ),
        drawn=({"beta": 0.1}, {"beta": 0.3}),
    ),
    Claim(
        fn=jaxloss.orpo,
        domains=domains.ANSWERS,
        settings=(orpo(0.1),),
        accuracy=(in_mean(0, ""), in_mean(1, "in the rejected")),
        line=Line(
            "mean log-probability, rejected at −1",
            (-3, -0.02),
            lambda x, _: (x, 0 * x - 1),
        ),
    ),
]
