"""Claims of the transforms of logits."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import logits
from jaxloss.testing.accuracy import Case, decades, line, pairs
from jaxloss.testing.claim import Claim
from jaxloss.testing.exact import mp

VALUES, TEMPERATURES = pairs(
    np.concatenate([line(points=23), decades(1e-4, 1e4, points=9), [0.0]]),
    np.array([1e-3, 0.3, 1.0, 2.5, 50.0]),
)
COUNTS = np.geomspace(1e-4, 6e4, 12)
STRENGTHS = np.linspace(-1, 2, 12)  # none is 0


def temperature_case(argument: int, name: str) -> Case:
    return Case(
        name=f"in {name}",
        formula=lambda z, t: z / t,
        columns=(VALUES, TEMPERATURES),
        names=("temperature",),
        argument=argument,
        bounds=(0.5, 1.5, 3),
        halves=False,  # a float32 temperature goes with logits of any dtype
    )


@jax.vmap
def adjusted(z: jax.Array, prior: jax.Array, strength: jax.Array) -> jax.Array:
    """The adjusted first logit of one example with two classes."""
    rows = jnp.stack([z, jnp.zeros_like(z)]), jnp.stack([prior, 1 + prior])
    return logits.adjust_logits(*rows, strength=strength)[0]


def adjustment_case(argument: int, name: str, bounds: tuple) -> Case:
    return Case(
        name=f"adjust_logits in {name}",
        fn=adjusted,
        formula=lambda z, prior, strength: z + strength * mp.log(prior),
        columns=(np.linspace(-9, 9, 12), COUNTS, STRENGTHS),
        argument=argument,
        # log(prior) vanishes at 1, where it is as good as the prior itself.
        conditioned=(True, False, False),
        bounds=bounds,
    )


CLAIMS = [
    Claim(
        fn=logits.temperature,
        accuracy=(temperature_case(0, "logits"), temperature_case(1, "temperature")),
    ),
    Claim(
        fn=logits.adjust_logits,
        accuracy=(
            adjustment_case(0, "logits", (2, 0, 0)),
            adjustment_case(1, "priors", (2, 2, 4)),
            adjustment_case(2, "strength", (2, 2, 4)),
        ),
    ),
]
