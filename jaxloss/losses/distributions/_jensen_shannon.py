"""What a class adds to the Jensen-Shannon divergence: (q log(q/m) + t log(t/m)) / 2.

With s = q + t and d = (q - t) / s, that is s/2 times the function of d alone
((1+d) log(1+d) + (1-d) log(1-d)) / 2 = d^2/2 + d^4/12 + d^6/30 + ...
"""

import jax
import jax.numpy as jnp

from jaxloss import stable
from jaxloss.stable import xla


def _shares(log_q: jax.Array, t: jax.Array) -> tuple[jax.Array, ...]:
    """(q, s, d); s = 0 has d = 0."""
    q = jnp.exp(log_q)
    # Near q = 1 not from q, which has lost the digits that distinguish it from t.
    near_one = log_q > -0.5
    below_one = stable.expm1(jnp.where(near_one, log_q, 0))
    gap = jnp.where(near_one, below_one + (1 - t), q - t)
    return q, q + t, stable.safe_divide(gap, q + t)


def _log_share(d: jax.Array, part: jax.Array, s: jax.Array) -> jax.Array:
    """`log(1 + d) = log(2 part / s)`, and 0 where the part is 0."""
    share = jnp.where(part == 0, 0.5, stable.safe_divide(part, s))
    near = jnp.where((d > -0.5) & (part != 0), d, 0)
    return jnp.where(d > -0.5, stable.log1p(near), jnp.log(2 * share))


@xla.rematerialised_unless_cpu
@stable.slopes(
    lambda log_q, t: _term_dlog_q(log_q, t), lambda log_q, t: _term_dt(log_q, t)
)
def term(log_q: jax.Array, t: jax.Array) -> jax.Array:
    q, s, d = _shares(log_q, t)
    near = jnp.abs(d) < 0.6
    u = jnp.square(jnp.where(near, d, 0))
    # What is left out is less than 2^-26 (2^-55 in float64) of the sum at d = 0.6.
    terms = 13 if d.dtype == jnp.float32 else 30
    small = u * stable.polynomial(
        u, [1 / (2 * k * (2 * k - 1)) for k in range(1, terms + 1)]
    )
    of_q, of_t = (2 * stable.safe_divide(part, s) for part in (q, t))
    large = 0.5 * (stable.xlogy(of_q, of_q) + stable.xlogy(of_t, of_t))
    return 0.5 * s * jnp.where(near, small, large)


@stable.slopes(
    lambda log_q, t: _term_dlog_q2(log_q, t), lambda log_q, t: -_half_share(log_q, t)
)
def _term_dlog_q(log_q: jax.Array, t: jax.Array) -> jax.Array:
    q, s, d = _shares(log_q, t)
    return 0.5 * q * _log_share(d, q, s)


@stable.slopes(
    lambda log_q, t: -_half_share(log_q, t),
    lambda log_q, t: stable.safe_divide(_half_share(log_q, t), t),
)
def _term_dt(log_q: jax.Array, t: jax.Array) -> jax.Array:
    _, s, d = _shares(log_q, t)
    return 0.5 * _log_share(-d, t, s)


def _term_dlog_q2(log_q: jax.Array, t: jax.Array) -> jax.Array:
    q, s, d = _shares(log_q, t)
    return 0.5 * q * (_log_share(d, q, s) + stable.safe_divide(t, s))


def _half_share(log_q: jax.Array, t: jax.Array) -> jax.Array:
    q, s, _ = _shares(log_q, t)
    return 0.5 * stable.safe_divide(q, s)
