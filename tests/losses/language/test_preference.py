"""Preference losses: what they are for two answers, and their gradients."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss import margins
from jaxloss.testing import tolerance

FLOAT64 = tolerance(np.float64)

# --- what they are -------------------------------------------------------------------


def draw(count, size=9):
    rng = np.random.default_rng(0)
    return [jnp.asarray(-np.abs(9 * rng.normal(size=size))) for _ in range(count)]


def test_dpo_is_a_logistic_loss_of_the_gain():
    """So other losses of margins make other members of the family."""
    w, v, w0, v0 = draw(4)
    gain = (w - w0) - (v - v0)
    losses = jaxloss.dpo(w, v, w0, v0, beta=0.3)
    want = jaxloss.logistic(0.3 * gain, jnp.ones(9))
    np.testing.assert_allclose(losses, want, rtol=8 * FLOAT64)
    ipo = jaxloss.ipo(w, v, w0, v0, beta=0.3)
    want = margins.squared(0.6 * gain) / 0.6**2
    np.testing.assert_allclose(ipo, want, rtol=8 * FLOAT64)


def test_dpo_that_changed_nothing_is_a_guess():
    """Under the reference itself: log 2, and slopes of beta / 2."""
    w, v = draw(2)
    total = lambda w, v: jnp.sum(jaxloss.dpo(w, v, *draw(2), beta=0.1))
    value, slopes = jax.value_and_grad(total, (0, 1))(w, v)
    np.testing.assert_allclose(value, 9 * np.log(2), rtol=FLOAT64)
    np.testing.assert_allclose(slopes, [[-0.05] * 9, [0.05] * 9], rtol=FLOAT64)


def test_simpo_is_dpo_without_a_reference():
    """At the margin 0."""
    w, v = draw(2)
    losses = jaxloss.simpo(w, v, beta=2.0, gamma=0.0)
    zero = jnp.zeros(9)
    want = jaxloss.dpo(w, v, zero, zero, beta=2.0)
    np.testing.assert_allclose(losses, want, rtol=8 * FLOAT64)


def test_kto_of_an_answer_and_its_contrary_is_one():
    """What is lost if it is good and what is lost if it is bad add up."""
    own, reference = draw(2)
    good, bad = (
        jaxloss.kto(own, reference, jnp.full(9, kind), baseline=0.5, beta=0.2)
        for kind in (True, False)
    )
    np.testing.assert_allclose(good + bad, np.ones(9), rtol=FLOAT64)


def test_orpo_of_equal_answers():
    """Imitation, and a guess."""
    (w,) = draw(1)
    losses = jaxloss.orpo(w, w, beta=0.5)
    np.testing.assert_allclose(losses, -w + 0.5 * np.log(2), rtol=8 * FLOAT64)


# --- from hidden states --------------------------------------------------------------


def test_the_recipe_learns_to_prefer(capsys):
    """From hidden states, with every loss, on text."""
    path = pathlib.Path(__file__).parents[3] / "docs/examples/preferences.py"
    names: dict[str, Any] = {"__name__": "__main__"}
    with jax.enable_x64(False):
        exec(compile(path.read_text(), path, "exec"), names)
    before = names["right"].pop("imitation of both")
    assert before < 0.7
    assert sorted(names["right"]) == ["dpo", "grpo", "kto", "orpo", "simpo"]
    assert min(names["right"].values()) > before + 0.1
    assert capsys.readouterr().out.startswith("{'imitation")
