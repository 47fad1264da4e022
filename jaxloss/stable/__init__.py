"""The primitives of all losses: accurate in value and in every derivative.

The contract of this module holds for float32 and float64, eager and under `jit`, in
forward and reverse mode.  For any input the value, the first and the second derivative
are within the stated number of units in the last place (ulp) of the true ones, wherever
those are representable.  The value under `grad` equals the value alone, bit for bit or
(`labelled`) within the same bound.  The bounds are those of `jaxloss.claims`, measured
with mpmath on XLA:CPU, which flushes subnormal numbers to zero.

Autodiff is not enough, for three reasons.  The derivative of an accurate formula need
not be accurate (`1 - tanh(x)**2` is 0 from x = 9 on).  Reverse mode multiplies an
infinite derivative by a zero cotangent, which gives NaN.  And XLA rewrites
`(x + c) - c` to `x`, `exp(a) * exp(b)` to `exp(a + b)`, `log(exp(x))` to `x`.  So the
derivative of each primitive is another primitive of this module, whose derivative is
again one.
"""

import operator
import sys
import warnings

from jaxloss.stable import xla as xla
from jaxloss.stable.cosine import (
    angle as angle,
    cosine_distance as cosine_distance,
    cosine_similarity as cosine_similarity,
)
from jaxloss.stable.distributions import (
    softmax_cross_entropy as softmax_cross_entropy,
    softmax_slope as softmax_slope,
)
from jaxloss.stable.excess import expm1_excess as expm1_excess
from jaxloss.stable.labelled import (
    has_class as has_class,
    softmax_nll as softmax_nll,
    softmax_nll_and_probability as softmax_nll_and_probability,
    softmax_nll_and_z as softmax_nll_and_z,
    softmax_spread as softmax_spread,
)
from jaxloss.stable.rows import (
    log_probabilities as log_probabilities,
    log_softmax as log_softmax,
    logsumexp as logsumexp,
    softmax as softmax,
    softmax_complement as softmax_complement,
    softmax_likelihoods as softmax_likelihoods,
)
from jaxloss.stable.scalars import (
    boxcox as boxcox,
    compensated_sum as compensated_sum,
    difference as difference,
    exp_difference as exp_difference,
    expm1 as expm1,
    log1mexp as log1mexp,
    log1p as log1p,
    log1p_exp as log1p_exp,
    log1p_exp_opaque as log1p_exp_opaque,
    log_cosh as log_cosh,
    log_sigmoid as log_sigmoid,
    magnitude as magnitude,
    polynomial as polynomial,
    safe_divide as safe_divide,
    sech2 as sech2,
    sigmoid as sigmoid,
    sigmoid_less_half as sigmoid_less_half,
    sigmoid_power as sigmoid_power,
    sigmoid_slope as sigmoid_slope,
    softplus as softplus,
    sqrt as sqrt,
    tanh as tanh,
    xlog1py as xlog1py,
    xlogy as xlogy,
    xlogy_of_sigmoid as xlogy_of_sigmoid,
)
from jaxloss.stable.slopes import slopes as slopes
from jaxloss.stable.vectors import (
    distances as distances,
    norm as norm,
    squared_distances as squared_distances,
    unit as unit,
)

_RENAMED = {
    "anew": "xla.cpu_barrier",
    "apart": "xla.rematerialised",
    "constants": "xla.opaque_constants",
    "log1p_exp_apart": "log1p_exp_opaque",
    "nan_unless": "xla.nan_unless",
    "pin": "xla.no_reassociation",
    "rounded": "xla.no_fma",
    "scaled_expm1": "boxcox",
    "with_derivatives": "slopes",
}


def __getattr__(name: str) -> object:
    """The present name for a name of version 0.1."""
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    now = _RENAMED[name]
    warnings.warn(
        f"jaxloss.stable.{name} is jaxloss.stable.{now}; the old name goes in 0.3",
        DeprecationWarning,
        stacklevel=2,
    )
    return operator.attrgetter(now)(sys.modules[__name__])
