"""Claims of the policy-gradient losses."""

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import domains
from jaxloss.claims.common import (
    exact,
    exact_rows,
    refused,
    refused_pairs,
    scale,
    shift,
)
from jaxloss.testing import LossSpec
from jaxloss.testing.accuracy import Case, decades, line, pairs
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

ONES = np.ones(3)

# --- tokens --------------------------------------------------------------------------


def tokens(rng, shape):
    """Some clipped either way, some masked; an advantage of either sign."""
    old = -0.25 - np.abs(rng.normal(size=shape))
    new = np.minimum(old + 0.4 * rng.normal(size=shape), 0.0)
    return new, old, rng.normal(size=shape), rng.random(shape) < 0.8


def of_token(new, old, a, epsilon_low, epsilon_high):
    """The ratio, its bound on the side of the advantage, and whether it is clipped."""
    ratio, bound = mp.exp(new - old), 1 + epsilon_high if a > 0 else 1 - epsilon_low
    clipped = ratio >= bound if a > 0 else ratio <= bound
    return ratio, bound, clipped or not a


@exact
def ppo_clip_of(new, old, a, where, **epsilons):
    ratio, bound, clipped = of_token(new, old, a, **epsilons)
    return -a * (bound if clipped else ratio) * where


@exact
def ppo_clip_slopes(new, old, a, where, **epsilons):
    ratio, bound, clipped = of_token(new, old, a, **epsilons)
    slope = 0 if clipped else -a * ratio * where
    return slope, -slope, -(bound if clipped else ratio) * where


def token_edges(dtype):
    """Ratios of every size, clipped or not, of every advantage; masked or not."""
    changes = [0.0, 1e-6, -1e-6, 0.3, -0.3, 7.0, -7.0, 60.0, -60.0]
    advantages = [0.0, 1e-6, -1e-6, 1.0, -1.0, 1e3, -1e3]
    change, a = (x.ravel() for x in np.meshgrid(changes, advantages))
    new = -2 + np.minimum(change, 0)
    old = new - change
    return [(new, old, a, np.full(a.shape, keep)) for keep in (True, False)]


def ppo_clip(low, high):
    name, x = "ppo_clip", ONES
    return LossSpec(
        name=f"{name}(epsilon_low={low}, epsilon_high={high})",
        fn=jaxloss.ppo_clip,
        params={"epsilon_low": low, "epsilon_high": high},
        sample=tokens,
        keywords=("where",),
        differentiable=(0, 1, 2),
        reference=ppo_clip_of,
        gradient=ppo_clip_slopes,
        smooth=False,
        symmetries=(shift(0, 1), scale(1, 2)),
        extremes=token_edges,
        bad_calls=(
            refused(name, "log_probs", x.astype(int), x, x, error=TypeError),
            refused(name, "old_log_probs", x, x[:2], x),
            refused(name, "old_log_probs", x, x.astype(int), x, error=TypeError),
            refused(name, "advantages", x, x, x[:2]),
            refused(name, "advantages", x, x, np.ones((3, 1))),
            refused(name, "advantages", x, x, "good", error=TypeError),
            refused(name, "where", x, x, x, where=x, error=TypeError),
            refused(name, "where", x, x, x, where=np.ones((3, 1), bool)),
            refused(name, "epsilon_low", x, x, x, epsilon_low=1.5),
            refused(name, "epsilon_high", x, x, x, epsilon_high=-0.1),
        ),
    )


@exact
def kl_estimate_of(own, reference):
    return mp.expm1(reference - own) - (reference - own)


@exact
def kl_estimate_slopes(own, reference):
    return -mp.expm1(reference - own), mp.expm1(reference - own)


def kl_estimate():
    change = np.array([0, 1e-6, -1e-6, 0.3, -0.9, 2, 60, -60])
    own = -2 + np.minimum(change, 0)
    return LossSpec(
        name="kl_estimate",
        fn=jaxloss.kl_estimate,
        sample=lambda rng, shape: tuple(-np.abs(rng.normal(size=(2, *shape)))),
        differentiable=(0, 1),
        reference=kl_estimate_of,
        gradient=kl_estimate_slopes,
        curvature=exact(lambda own, reference: mp.exp(reference - own)),
        convex=True,
        minimiser=lambda reference: reference,
        symmetries=(shift(0, 1),),
        extremes=lambda dtype: [(own, own - change)],
        bad_calls=refused_pairs("kl_estimate", "log_probs", "reference_log_probs"),
    )


CHANGES = np.concatenate([line(-80, 80, 33), decades(1e-18, 1e-2, 9)])
OLD = np.full(len(CHANGES), -0.5, np.float32)


def clipped_cases():
    """By the log-ratio: of the kinks, only the sides."""
    change, a = pairs(line(-2, 2, 17), np.array([-3.0, -0.1, 0.1, 2.0]))
    old = np.full(len(change), -0.5, np.float32)
    narrow, wide = (np.full(len(change), x, np.float32) for x in (0.2, 0.28))
    yield Case(
        columns=(change - 0.5, old, a, old < 0, narrow, wide),
        names=("where", "epsilon_low", "epsilon_high"),
        fixed=(1, 3, 4, 5),
        conditioned=(True, True, True),
        bounds=(1, 1, 1),
        halves=False,
    )


# --- groups --------------------------------------------------------------------------


class OfGroup(LossSpec):
    """A loss of a group of answers `(group, tokens)` with a value per token.

    One example of the laws is a group, so they see one number of it: the sum, in which
    every token has a weight of its own.
    """

    def __call__(self, *args, **overrides):
        losses = super().__call__(*args, **overrides)
        weights = np.arange(1, np.prod(losses.shape[-2:]) + 1, dtype=losses.dtype)
        weights = weights.reshape([1] * (losses.ndim - 2) + [*losses.shape[-2:]])
        return jnp.sum(losses * weights, axis=(-2, -1))


def group_of_answers(rng, shape):
    """Three answers of two tokens, some clipped either way, some masked."""
    size = (*shape, 3, 2)
    old = -0.25 - np.abs(rng.normal(size=size))
    new = np.minimum(old + 0.4 * rng.normal(size=size), 0.0)
    return new, old, rng.normal(size=(*shape, 3)), rng.random(size) < 0.8


def surrogates(new, old, rewards, where, low, high):
    """Each token's weight, advantage, ratio, whether it is clipped, and its bound."""
    given = [r for r, keep in zip(rewards, where, strict=True) if any(keep)]
    mean = mp.fsum(given) / max(len(given), 1)
    std = mp.sqrt(mp.fsum((r - mean) ** 2 for r in given) / max(len(given), 1))
    weight = 0
    for i, reward in enumerate(rewards):
        a = (reward - mean) / std if std else mp.mpf(0)
        for x, y, keep in zip(new[i], old[i], where[i], strict=True):
            weight += 1
            ratio, bound = mp.exp(x - y), 1 + high if a > 0 else 1 - low
            clipped = ratio >= bound if a > 0 else ratio <= bound
            yield weight * keep * a, ratio, clipped or not a, bound


@exact_rows(2, 2, 1, 2)
def grpo_of(new, old, rewards, where, epsilon_low, epsilon_high):
    terms = surrogates(new, old, rewards, where, epsilon_low, epsilon_high)
    return -mp.fsum(a * (bound if clipped else r) for a, r, clipped, bound in terms)


@exact_rows(2, 2, 1, 2)
def grpo_slopes(new, old, rewards, where, epsilon_low, epsilon_high):
    terms = surrogates(new, old, rewards, where, epsilon_low, epsilon_high)
    flat = [mp.mpf(0) if clipped else -a * r for a, r, clipped, _ in terms]
    return [flat[i : i + len(new[0])] for i in range(0, len(flat), len(new[0]))]


@exact_rows(2, 2, 1, 2)
def grpo_cancels(new, old, rewards, where, epsilon_low, epsilon_high):
    terms = surrogates(new, old, rewards, where, epsilon_low, epsilon_high)
    given = [r for r, keep in zip(rewards, where, strict=True) if any(keep)] or [0]
    size = 1 + max(map(abs, given)) / (max(given) - min(given) or mp.inf)
    return size * mp.fsum(
        abs(a) * (bound if clipped else r) for a, r, clipped, bound in terms
    )


def group_edges(dtype):
    """Nothing changed, much changed, equal rewards, one good answer, nothing left, one
    left, two left of which neither is the first."""
    old = -np.array([[6.0, 7.0], [5.5, 8.0], [9.0, 5.1]])
    shift = np.array([[5.0, -5.0], [5.0, -5.0], [0.1, -0.1]])
    one, equal = np.array([0.0, 1.0, 0.0]), np.full(3, 0.1)
    some, none = np.array([[1, 1], [1, 0], [0, 1]], bool), np.zeros((3, 2), bool)
    groups = [(old, one, some), (old + shift, one, some), (old + shift, equal, some)]
    groups += [(old - shift, 1e3 * one, some), (old + shift, one, none)]
    failed = np.array([1e4, 1.0, 0.0])
    for left in (failed == 1, failed < 1e4):
        groups += [(old + shift, failed, some & left[:, None])]
    return [(new[None], old[None], r[None], w[None]) for new, r, w in groups]


def grpo(low, high):
    name, x, r = "grpo", np.ones((3, 2)), ONES
    return OfGroup(
        name=f"grpo(epsilon_low={low}, epsilon_high={high})",
        fn=jaxloss.grpo,
        params={"epsilon_low": low, "epsilon_high": high},
        sample=group_of_answers,
        keywords=("where",),
        event_ndim=2,
        reference=grpo_of,
        gradient=grpo_slopes,
        cancels=grpo_cancels,
        smooth=False,
        symmetries=(shift(0, 1), shift(2), scale(0, 2)),
        extremes=group_edges,
        bad_calls=(
            refused(name, "log_probs", x.astype(int), x, r, error=TypeError),
            refused(name, "log_probs", r, r, np.ones(())),
            refused(name, "old_log_probs", x, x[:2], r),
            refused(name, "old_log_probs", x, x.astype(int), r, error=TypeError),
            refused(name, "rewards", x, x, x),
            refused(name, "rewards", x, x, "good", error=TypeError),
            refused(name, "where", x, x, r, where=x, error=TypeError),
            refused(name, "where", x, x, r, where=np.ones(3, bool)),
            refused(name, "epsilon_low", x, x, r, epsilon_low=1.5),
            refused(name, "epsilon_high", x, x, r, epsilon_high=-0.1),
        ),
    )


# --- claims --------------------------------------------------------------------------

CLAIMS = [
    Claim(
        fn=jaxloss.ppo_clip,
        domains={
            "log_probs": domains.LOG_PROBS,
            "old_log_probs": domains.LOG_PROBS,
            "advantages": domains.REAL,
        },
        settings=(ppo_clip(0.2, 0.28),),
        accuracy=(*clipped_cases(),),
        line=Line(
            "log-ratio to the old model",
            (-1, 1),
            lambda x, a: (x, 0 * x, jnp.full_like(x, a)),
            (("advantage 1", 1.0), ("advantage −1", -1.0)),
        ),
        drawn=({},),
    ),
    Claim(
        fn=jaxloss.kl_estimate,
        domains={
            "log_probs": domains.LOG_PROBS,
            "reference_log_probs": domains.LOG_PROBS,
        },
        settings=(kl_estimate(),),
        accuracy=(
            Case(
                columns=(OLD, CHANGES),
                argument=1,
                fixed=(0,),
                conditioned=(True, True, True),
                bounds=(2, 2, 1),
                halves=False,
            ),
        ),
        line=Line("log-ratio to the reference", (-3, 3), lambda x, _: (x, 0 * x)),
    ),
    Claim(
        fn=jaxloss.grpo,
        domains={
            "log_probs": domains.LOG_PROBS,
            "old_log_probs": domains.LOG_PROBS,
            "rewards": domains.REAL,
        },
        settings=(grpo(0.2, 0.28),),
        line=Line(
            "log-ratio to the old model",
            (-1, 1),
            lambda x, r: (
                jnp.stack([x, 0 * x])[:, None],
                np.zeros((2, 1)),
                jnp.stack([r, 1 - r]),
            ),
            (("better answer", 1.0), ("worse answer", 0.0)),
        ),
        drawn=({},),
    ),
]
