"""Claims of the transforms of targets."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import targets
from jaxloss.testing.accuracy import Case, pairs
from jaxloss.testing.claim import Claim

LABELS, SHARES = pairs(
    np.array([0.0, 1e-4, 0.01, 0.3, 0.9999, 1.0]),
    np.array([0.0, 1e-4, 0.01, 0.1, 0.7, 1.0]),
)


@jax.vmap
def smoothed(y: jax.Array, smoothing: jax.Array) -> jax.Array:
    """The smoothed first weight of one example; four other classes share the rest."""
    labels = jnp.concatenate([y[None], jnp.broadcast_to((1 - y) / 4, (4,))])
    return targets.smooth_labels(labels, smoothing=smoothing)[0]


def cases(fn, name: str, classes: int, **claims) -> tuple[Case, ...]:
    """In the labels and in the share that is smoothed away."""
    return tuple(
        Case(
            name=f"{name} in {argument}",
            fn=fn,
            formula=lambda y, e: (1 - e) * y + e / classes,
            columns=(LABELS, SHARES),
            argument=position,
            # 1 - smoothing and 1/K - y cancel as the arguments allow.
            conditioned=(False, True, False),
            bounds=(2, 2, 0),
            halves=False,
            **claims,
        )
        for position, argument in enumerate(("labels", "smoothing"))
    )


BINARY = targets.smooth_binary_labels
CLAIMS = [
    Claim(
        fn=BINARY,
        accuracy=cases(BINARY, "smooth_binary_labels", 2, names=("smoothing",)),
    ),
    Claim(fn=targets.smooth_labels, accuracy=cases(smoothed, "smooth_labels", 5)),
]
