"""The purpose of a loss: the constant or the forecast where it is least, and its
invariances."""

from typing import Any

import numpy as np

from jaxloss.testing.evidence import Trial
from jaxloss.testing.laws import law
from jaxloss.testing.spec import LossSpec
from jaxloss.testing.ulps import DOUBLE, tolerance

PARTS = (1e-3, 0.1, 1.0)  # of the way to another prediction


@law("functional")
def is_least_at_functional(spec: LossSpec) -> None:
    """Of all constant predictions, the named functional of a sample of targets (its
    mean, its median, a quantile) has the least mean loss over the sample."""
    for seed in range(3):
        x, *targets = Trial.draw(spec, (31,), seed=seed).args
        best = spec.functional(*targets, **spec.params) if spec.functional else 0.0
        at = lambda c, x=x, targets=targets: Trial(spec, (np.full_like(x, c), *targets))
        found = at(best).value()
        for step in (side * part for part in PARTS for side in (-1, 1)):
            other = at(best + step * (1 + abs(best))).value()
            _no_less(f"the mean loss beside {best!r}", np.mean(other), found)


@law("proper")
def is_proper(spec: LossSpec) -> None:
    """In expectation under a distribution, no forecast is better than that
    distribution."""
    for seed in range(3):
        told, weights = _forecast(spec, seed)
        honest = Trial(spec, told).value()
        for other in range(10, 16):
            rival, _ = _forecast(spec, other)
            for part in PARTS:
                args = [
                    (1 - part) * a + part * b[:1] if i in spec.forecast else a
                    for i, (a, b) in enumerate(zip(told, rival, strict=True))
                ]
                loss = Trial(spec, tuple(args)).value()
                what = "the expected loss of another forecast"
                _no_less(what, weights @ loss, honest, weights)


@law("symmetries")
def is_symmetric(spec: LossSpec) -> None:
    """The named changes of the arguments do not change the loss, or change it as
    claimed."""
    for symmetry in spec.symmetries:
        for seed in range(3):
            trial = Trial.draw(spec, seed=seed)
            rng = np.random.default_rng(seed)
            args = next(
                args
                for args in (symmetry.move(rng, *trial.args) for _ in range(20))
                if _differs(args, trial.args)
            )
            moved = trial.of(*args)
            want = symmetry.value(trial.value())
            size = 2 * moved.spread() + np.abs(want)
            what = f"the loss after {symmetry.name}"
            moved.within_ulps(what, moved.value(), want, size, 2 * spec.ulps)


def _differs(args: tuple, others: tuple) -> bool:
    pairs = zip(args, others, strict=True)
    return any(not np.array_equal(a, b) for a, b in pairs)


def _forecast(spec: LossSpec, seed: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """A drawn distribution: arguments, a row for each outcome, and probabilities."""
    assert spec.proper
    args, weights = spec.proper(np.random.default_rng(seed))
    return tuple(map(np.asarray, args)), np.asarray(weights, DOUBLE)


def _no_less(
    what: str, got: Any, least: np.ndarray, weights: np.ndarray | None = None
) -> None:
    """Raises if a mean is below another by more than rounding."""
    mean, size = (np.average(a, weights=weights) for a in (least, np.abs(least)))
    if not np.isfinite(mean):
        raise AssertionError(f"{what} has nothing to be compared with: {mean}")
    if got < mean - tolerance(DOUBLE, 64) * (size + 1e-300):
        raise AssertionError(f"{what} is {got!r}; expected no less than {mean!r}")
