"""Claims of the transforms of logits."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import logits, stable
from jaxloss.claims.embedding.cosine import vectors
from jaxloss.claims.embedding.formulas import cosine
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


# --- angular margins -----------------------------------------------------------------

# What ArcFace, CosFace and SphereFace publish, and all three at once.
MARGINS = np.array(
    [[0.5, 1.0, 0.0], [0.0, 1.0, 0.35], [0.0, 4.0, 0.0], [0.3, 1.35, 0.1]]
)
SETTINGS = ("scale", "margin", "angle_factor", "cosine_margin")


@jax.vmap
def of_label(x: jax.Array, prototype: jax.Array, **settings: jax.Array) -> jax.Array:
    """The logit of the label of one embedding, which is the only class."""
    ids = jnp.zeros((), jnp.int32)
    return logits.angular_margin(x, prototype[None], ids, **settings)[0]


@jax.vmap
def margin_loss(
    x: jax.Array, prototype: jax.Array, other: jax.Array, **settings: jax.Array
) -> jax.Array:
    """The cross entropy of the first of two classes."""
    ids = jnp.zeros((), jnp.int32)
    rows = logits.angular_margin(x, jnp.stack([prototype, other]), ids, **settings)
    return stable.softmax_nll(rows, ids)


def logit_of_label(x, prototype, scale, margin, factor, cosine_margin):
    """As published for psi up to pi; each further half turn goes on from -1, -3, ..."""
    psi = factor * mp.acos(cosine(x, prototype)) + margin
    k = mp.floor(psi / mp.pi)
    return scale * ((-1) ** int(k) * mp.cos(psi) - 2 * k - cosine_margin)


def cross_entropy(x, prototype, other, scale, *margins):
    gap = scale * cosine(x, other) - logit_of_label(x, prototype, scale, *margins)
    return mp.log1p(mp.exp(gap))


def margin_cases(fn, formula, bounds, **arguments):
    """Ordinary, nearly parallel and opposite vectors, each at two settings."""
    x, prototype = (np.tile(v, (2, 1)) for v in vectors())
    other = np.random.default_rng(2).normal(size=x.shape)
    rows = (x, prototype, other) if fn is margin_loss else (x, prototype)
    settings = np.resize(MARGINS, (len(x), 3)).T
    for name, argument in arguments.items():
        yield Case(
            name=f"{fn.__name__} in {name}",
            fn=fn,
            formula=formula,
            columns=(*rows, np.resize([64.0, 2.0, 16.0, 4.0, 1.0], len(x)), *settings),
            names=SETTINGS,
            argument=argument,
            rowwise=True,
            conditioned=(True, True, True),
            bounds=bounds,
            # Two that are opposite in bfloat16 are at a kink of the multiple angle.
            halves=fn is of_label and argument < len(rows),
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
    Claim(
        fn=logits.angular_margin,
        accuracy=(
            *margin_cases(
                of_label,
                logit_of_label,
                (0.5, 1, 1),
                embedding=0,
                prototype=1,
                margin=3,
                angle_factor=4,
            ),
            *margin_cases(
                margin_loss,
                cross_entropy,
                (1.5, 2, 2),
                embedding=0,
                prototype=1,
                other=2,
                scale=3,
                margin=4,
            ),
        ),
    ),
]
