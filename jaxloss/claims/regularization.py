"""Claims of the penalties, of rows of parameters each, and of the entropy."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import domains
from jaxloss.claims.classification.cross_entropy import dot, log_probs
from jaxloss.claims.common import (
    big,
    exact_rows,
    flip,
    ladder,
    permutation,
    refused,
    root,
    scale,
    shift,
)
from jaxloss.testing import LossSpec
from jaxloss.testing.accuracy import Case, rows
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

# --- penalties ---------------------------------------------------------------------


def of_rows(penalty: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The penalty of each row, as if it were a loss of examples; hyperparameters are
    for all of them, or one for each."""

    @functools.wraps(penalty)
    def each(params: jax.Array, **settings: Any) -> jax.Array:
        batch = params.shape[:-1]
        numbers = {k: v for k, v in settings.items() if isinstance(v, float)}
        others = {
            k: jnp.broadcast_to(v, batch)
            for k, v in settings.items()
            if k not in numbers
        }
        run = functools.partial(penalty, **numbers)
        for _ in batch:
            run = jax.vmap(run)
        return run(params, **others)

    return each


def sample(rng, shape):
    return (3 * rng.normal(size=(*shape, 4)),)


def sizes(top, dtype):
    """Each magnitude beside 0 and others, equal ones, and none."""
    x = ladder(dtype, top(dtype) / 4)
    beside = np.stack([x, 0 * x, np.ones_like(x), -x], axis=-1)
    return [(beside,), (np.zeros((1, 4)),)]


def magnitudes(w):
    return mp.fsum(abs(v) for v in w)


def squares(w):
    return mp.fsum(v**2 for v in w)


def signs(w):
    return [mp.mpf(mp.sign(v)) for v in w]


def mixture(w, l1_ratio):
    return l1_ratio * magnitudes(w) + (1 - l1_ratio) * squares(w)


def mixture_slope(w, l1_ratio):
    return [l1_ratio * mp.sign(v) + 2 * (1 - l1_ratio) * v for v in w]


def penalty_setting(
    fn, value, slope, bend, symmetries, *, top=root, bad_calls=(), **params
):
    """`bend` is the second derivative in each parameter."""
    name, ones = fn.__name__, np.ones((3, 4))
    setting = ", ".join(f"{k}={v}" for k, v in params.items())
    return LossSpec(
        name=f"{name}({setting})" if params else name,
        fn=fn,
        params=params,
        sample=sample,
        event_ndim=1,
        reference=exact_rows(1)(value),
        gradient=exact_rows(1)(slope),
        curvature=lambda w, **params: np.broadcast_to(
            bend(**params) * np.eye(4), (*w.shape, 4)
        ),
        smooth=False,
        extremes=functools.partial(sizes, top),
        minimiser=lambda **params: np.zeros(()),
        convex=True,
        symmetries=(flip(0), permutation(0), *symmetries),
        bad_calls=(
            refused(name, "params", ones.astype(int), error=TypeError),
            refused(name, "params", ones > 0, error=TypeError),
            *bad_calls,
        ),
    )


def parameters(low, high, count=16, size=4):
    """Rows of parameters, from tiny to huge, some of them 0."""
    w = np.random.default_rng(0).normal(size=(count, size))
    w *= np.geomspace(low, high, count)[:, None]
    w[::3, 0] = 0
    return w


# Beyond 1e4 the squares leave float16; float32 has them up to 1e19.
GRIDS = {"huge": parameters(1e-15, 1e15), "half": parameters(1e-2, 50)}
SHARES = np.linspace(0, 1, len(GRIDS["huge"]))


def penalty_cases(fn, bounds, first=None, second=None):
    for name, w in GRIDS.items():
        yield Case(
            name=f"{fn.__name__}, {name}",
            fn=fn,
            first=first,
            second=second,
            columns=(w,),
            bounds=bounds,
            halves=name == "half",
        )


def mixture_cases(fn):
    for name, w in GRIDS.items():
        common = {
            "fn": fn,
            "columns": (w, SHARES),
            "names": ("l1_ratio",),
            "halves": name == "half",
        }
        yield Case(
            name=f"elastic_net, {name}",
            first=mixture_slope,
            second=lambda w, share: [2 * (1 - share)] * len(w),
            bounds=(4, 2, 1),
            **common,
        )
        yield Case(
            name=f"elastic_net in l1_ratio, {name}",
            argument=1,
            first=lambda w, share: magnitudes(w) - squares(w),
            second=lambda w, share: mp.mpf(0),
            conditioned=(False, True, False),
            bounds=(4, 2, 0),
            **common,
        )


L1, L2, ELASTIC_NET = map(of_rows, (jaxloss.l1, jaxloss.l2, jaxloss.elastic_net))


def elastic_net(l1_ratio):
    return penalty_setting(
        ELASTIC_NET,
        mixture,
        mixture_slope,
        lambda l1_ratio: 2 * (1 - l1_ratio),
        (),
        bad_calls=(
            refused("elastic_net", "l1_ratio", np.ones((3, 4)), l1_ratio=1.5),
            refused("elastic_net", "l1_ratio", np.ones((3, 4)), l1_ratio=-0.5),
        ),
        l1_ratio=l1_ratio,
    )


# --- entropy -----------------------------------------------------------------------


def entropy(z):
    logs = log_probs(z)
    return -dot(map(mp.exp, logs), logs)


def entropy_slope(z):
    logs, h = log_probs(z), entropy(z)
    return [-mp.exp(v) * (v + h) for v in logs]


def entropy_bends(z):
    """The diagonal of the Hessian; off it entries cancel as far as they like."""
    logs, h, slope = log_probs(z), entropy(z), entropy_slope(z)
    return [
        mp.exp(v) * (mp.expm1(v) * (v + h + 1) - g)
        for v, g in zip(logs, slope, strict=True)
    ]


def logit_rows(dtype):
    """Ties anywhere, a class that is sure by little and by much, and all far apart."""
    large = big(dtype)
    rows = [[0.0] * 7, [large] * 7, [-large] * 7, [3.0, 3.0, *[0.0] * 5]]
    rows += [[lead, *[0.0] * 6] for lead in (1e-3, 5.0, 20.0, 60.0, large)]
    rows += [[large, large, 0.0, -large, 1.0, 1.0, 0.0], [*range(7)]]
    return [(np.array(rows),)]


def entropy_cases():
    for classes in (2, 5, 9):
        # Two classes are differentiated by differences; closed forms are faster.
        closed = classes > 2
        yield Case(
            name=f"of {classes} classes",
            columns=(rows(classes),),
            rowwise=True,
            bounds=(4, 4, 10),
            first=entropy_slope if closed else None,
            second=entropy_bends if closed else None,
        )


def seven_logits(rng, shape):
    return (3 * rng.normal(size=(*shape, 7)),)


ENTROPY = LossSpec(
    name="entropy",
    fn=jaxloss.entropy,
    sample=seven_logits,
    event_ndim=1,
    reference=exact_rows(1)(entropy),
    gradient=exact_rows(1)(entropy_slope),
    extremes=logit_rows,
    symmetries=(shift(0), permutation(0)),
    bad_calls=(
        refused("entropy", "logits", np.ones((3, 4), int), error=TypeError),
        refused("entropy", "axis", np.ones((3, 4)), axis=2),
        refused("entropy", "where", np.ones(4), where=np.ones(4), error=TypeError),
        refused("entropy", "where", np.ones(4), where=np.ones(3, bool)),
    ),
)

OF_PARAMETER = Line("parameter", (-2, 2), lambda x, _: (x,))
OF_LOGIT = Line(
    "logit of a class, two others 0",
    (-6, 6),
    lambda x, _: (jnp.stack([x, 0 * x, 0 * x]),),
)
CLAIMS = [
    Claim(
        fn=jaxloss.l1,
        domains={"params": domains.REAL},
        settings=(
            penalty_setting(L1, magnitudes, signs, lambda: 0, (scale(1, 0),), top=big),
        ),
        accuracy=(
            *penalty_cases(L1, (2, 0, 0), signs, lambda w: [mp.mpf(0)] * len(w)),
        ),
        line=OF_PARAMETER,
    ),
    Claim(
        fn=jaxloss.l2,
        domains={"params": domains.REAL},
        settings=(
            penalty_setting(
                L2, squares, lambda w: [2 * v for v in w], lambda: 2, (scale(2, 0),)
            ),
        ),
        accuracy=(*penalty_cases(L2, (2, 0, 0)),),
        line=OF_PARAMETER,
    ),
    Claim(
        fn=jaxloss.elastic_net,
        domains={"params": domains.REAL},
        settings=(elastic_net(0.5), elastic_net(1.0)),
        accuracy=(*mixture_cases(ELASTIC_NET),),
        line=OF_PARAMETER,
    ),
    Claim(
        fn=jaxloss.entropy,
        domains={"logits": domains.LOGITS},
        settings=(ENTROPY,),
        accuracy=(*entropy_cases(),),
        line=OF_LOGIT,
    ),
]
