"""Symmetries at shapes and values that hypothesis chooses."""

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies

from jaxloss.claims import CLAIMS
from jaxloss.testing.evidence import Trial

# A setting of each loss that claims a symmetry.
SPECS = [
    next(spec for spec in claim.settings if spec.symmetries)
    for claim in CLAIMS
    if any(spec.symmetries for spec in claim.settings)
]


@pytest.mark.parametrize("spec", SPECS, ids=[spec.name for spec in SPECS])
@hypothesis.settings(deadline=None, max_examples=20, derandomize=True, database=None)
@hypothesis.given(
    seed=strategies.integers(0, 2**32 - 1),
    shape=strategies.lists(strategies.integers(1, 6), min_size=1, max_size=2),
    data=strategies.data(),
)
def test_what_a_loss_does_not_see(spec, seed, shape, data):
    """The loss of the changed arguments is the one claimed, for any sample."""
    symmetry = data.draw(strategies.sampled_from(spec.symmetries))
    rng = np.random.default_rng(seed)
    drawn = [np.asarray(a) for a in spec.sample(rng, tuple(shape))]
    args = [a.reshape(-1, *a.shape[len(shape) :]) for a in drawn]
    with jax.enable_x64(True), np.errstate(all="ignore"):
        trial = Trial(spec, tuple(args))
        moved = trial.of(*symmetry.move(rng, *args))
        want = symmetry.value(trial.value())
        size = 2 * moved.spread() + np.abs(want)
        what = f"the loss after {symmetry.name}"
        moved.within_ulps(what, moved.value(), want, size, 2 * spec.ulps)
