"""Divergences of a predicted distribution from a target distribution."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable
from jaxloss.losses.distributions import _jensen_shannon
from jaxloss.stable import excess, xla


@_jit.kernel("axis")
def kl_divergence(
    log_predictions: ArrayLike, targets: ArrayLike, *, axis: int = -1
) -> jax.Array:
    r"""Kullback-Leibler divergence of the targets from the predictions.

    Also called: KLD, KL, KL divergence, KLDivLoss, kl_div, relative entropy,
    distillation loss.

    .. math:: \mathrm{KL}(t \,\|\, q) = \sum_j t_j (\log t_j - \log q_j)

    This is the cross entropy minus the entropy of the targets.

    Args:
      log_predictions: Floating array of log-probabilities log q along `axis`, such as
        `stable.log_softmax(logits)` or `stable.log_probabilities(q)`; -inf is
        probability 0.
      targets: Probabilities t >= 0 of the same shape, boolean, integer or floating,
        cast to the dtype of `log_predictions`; a one-hot array gives the cross entropy.
      axis: The axis of the classes.

    Returns:
      Losses of the shape of `log_predictions` without `axis`, in nats.  A class with t
      = 0 adds 0 whatever q is; t > 0 where q = 0 gives inf.  If both sides have the
      same sum, such as 1, the loss is never negative: it is computed as
      `generalized_kl_divergence`, which is accurate near agreement.  Sums may differ by
      8 (1 + log K) eps, eps = 1.2e-7 in float32.  Otherwise, as for sides rounded to
      half precision, it is the formula, which may be negative.

    Raises:
      TypeError: If `log_predictions` is not floating or `targets` not real.
      ValueError: If the shapes differ or have no `axis`.

    Gradient:
      `-t` with respect to `log_predictions`, so `q - t` with respect to the logits of a
      log-softmax; `log t - log q + 1` with respect to `targets`, taken as 0 where t =
      0.  Convex.

    Use:
      task: distribution
      activation: log-softmax
      range: [0, inf]
      robust: yes
      convex: yes
      when: The target is a distribution, and agreement should cost 0, as in
        distillation.
      not when: Targets are too small for their dtype, as those of a confident teacher:
        use `kl_divergence_with_log_targets`.

    Reference:
      Kullback and Leibler, "On Information and Sufficiency", Annals of Mathematical
      Statistics 22, 1951.

    Example:
      >>> q, t = jnp.array([0.5, 0.25, 0.25]), jnp.array([1.0, 0.0, 0.0])
      >>> jaxloss.kl_divergence(jaxloss.stable.log_probabilities(q), t)
      Array(0.6931472, dtype=float32)
    """
    name = "kl_divergence"
    log_predictions, targets, axis = _distributions(
        name, log_predictions, targets, axis
    )
    terms = _kl_term(log_predictions, targets)
    # Hidden, or XLA:GPU writes out the ratio that both sums are made of.
    fixed = [xla.hidden(lax.stop_gradient(x)) for x in (log_predictions, targets)]
    return _sum(terms, _bregman_term(*fixed), targets, axis)


@_jit.kernel("axis")
def kl_divergence_with_log_targets(
    log_predictions: ArrayLike, log_targets: ArrayLike, *, axis: int = -1
) -> jax.Array:
    r"""Kullback-Leibler divergence of two arrays of log-probabilities.

    Also called: KLDivLoss (of log_target=True), distillation loss.

    .. math:: \mathrm{KL}(t \,\|\, q) = \sum_j e^{\log t_j} (\log t_j - \log q_j)

    This is `kl_divergence` for targets that may be too small to be represented.

    Args:
      log_predictions: Floating array of log-probabilities log q along `axis`, such as
        `stable.log_softmax(logits)` or `stable.log_probabilities(q)`; -inf is
        probability 0.
      log_targets: Floating array of the same shape; log t, likewise.
      axis: The axis of the classes.

    Returns:
      Losses of the shape of `log_predictions` without `axis`, in nats.  A class with t
      = 0 adds 0 whatever q is; t > 0 where q = 0 gives inf.  Exactly 0 where the
      arguments are equal; as accurate near agreement as `kl_divergence`, and never
      negative under the same condition.

    Raises:
      TypeError: If an argument is not floating.
      ValueError: If the shapes differ or have no `axis`.

    Gradient:
      `-t` with respect to `log_predictions`, `t (log t - log q + 1)` with respect to
      `log_targets`, 0 where t = 0.

    Use:
      task: distribution
      activation: log-softmax
      range: [0, inf]
      robust: yes
      convex: yes
      when: Both sides are log-probabilities, such as those of a student and its
        teacher.
      not when: A class of the target may have probability 0 in the prediction, and the
        loss must be finite: use `jensen_shannon`.

    Reference:
      Kullback and Leibler, "On Information and Sufficiency", Annals of Mathematical
      Statistics 22, 1951; as `torch.nn.KLDivLoss(log_target=True)`.

    Example:
      >>> q, t = jnp.array([0.5, 0.25, 0.25]), jnp.array([1.0, 0.0, 0.0])
      >>> log_q, log_t = map(jaxloss.stable.log_probabilities, (q, t))
      >>> jaxloss.kl_divergence_with_log_targets(log_q, log_t)
      Array(0.6931472, dtype=float32)
    """
    name = "kl_divergence_with_log_targets"
    log_q, log_t = _checks.floating(
        name, log_predictions=log_predictions, log_targets=log_targets
    )
    _checks.same_shape(name, log_predictions=log_q, log_targets=log_t)
    axis = _checks.row_axis(name, axis, "class", log_predictions=log_q)
    terms = _kl_term_with_log(log_q, log_t)
    fixed = [xla.hidden(lax.stop_gradient(x), 1) for x in (log_q, log_t)]
    t = _with_log(*[xla.hidden(lax.stop_gradient(x), 2) for x in (log_q, log_t)])[2]
    return _sum(terms, _bregman_term_with_log(*fixed), t, axis)


@_jit.kernel("axis")
def generalized_kl_divergence(
    log_predictions: ArrayLike, targets: ArrayLike, *, axis: int = -1
) -> jax.Array:
    r"""Kullback-Leibler divergence of intensities that need not sum to 1.

    Also called: I-divergence, generalised KL divergence, unnormalised KL.

    .. math:: D(t \,\|\, q) = \sum_j t_j (\log t_j - \log q_j) - t_j + q_j

    It is the Bregman divergence of `x log x - x`, and the Poisson negative
    log-likelihood minus that of a perfect prediction.

    Args:
      log_predictions: Floating array of logarithms log q of intensities along `axis`;
        -inf is intensity 0.
      targets: Intensities t >= 0 of the same shape, boolean, integer or floating, cast
        to the dtype of `log_predictions`.
      axis: The axis of the classes.

    Returns:
      Losses >= 0 of the shape of `log_predictions` without `axis`, in nats.  Each class
      adds a term >= 0, which is 0 only at q = t and accurate near it: t = 0 adds q; t >
      0 where q = 0 gives inf.

    Raises:
      TypeError: If `log_predictions` is not floating or `targets` not real.
      ValueError: If the shapes differ or have no `axis`.

    Gradient:
      `q - t` with respect to `log_predictions`; `log t - log q` with respect to
      `targets`, taken as 0 where t = 0.  Convex.

    Use:
      task: distribution, count
      activation: none (logarithms)
      range: [0, inf]
      robust: no
      convex: yes
      when: Both sides are intensities whose totals matter too, such as spectra,
        histograms or factors of a non-negative matrix.
      not when: Both sides sum to 1: use `kl_divergence`.

    Reference:
      Csiszár, "Why Least Squares and Maximum Entropy?", Annals of Statistics 19, 1991.

    Example:
      >>> q, t = jnp.array([2.0, 1.0]), jnp.array([1.0, 1.0])
      >>> jaxloss.generalized_kl_divergence(jnp.log(q), t)
      Array(0.30685282, dtype=float32)
    """
    name = "generalized_kl_divergence"
    log_predictions, targets, axis = _distributions(
        name, log_predictions, targets, axis
    )
    return jnp.sum(_bregman_term(log_predictions, targets), axis=axis)


@_jit.kernel("axis")
def jensen_shannon(
    log_predictions: ArrayLike, targets: ArrayLike, *, axis: int = -1
) -> jax.Array:
    r"""Jensen-Shannon divergence: symmetric, and never infinite.

    Also called: JSD, JS divergence, Jensen-Shannon divergence.

    .. math::
       \mathrm{JS}(q, t) = \tfrac12 \mathrm{KL}(q \,\|\, m)
       + \tfrac12 \mathrm{KL}(t \,\|\, m), \qquad m = \tfrac{q + t}{2}

    Args:
      log_predictions: Floating array of log-probabilities log q along `axis`, as for
        `kl_divergence`; -inf is probability 0.
      targets: Probabilities t >= 0 of the same shape, boolean, integer or floating,
        cast to the dtype of `log_predictions`.
      axis: The axis of the classes.

    Returns:
      Losses in [0, log 2] of the shape of `log_predictions` without `axis`, in nats:
      log 2 where the sides have no class in common, 0 where they are equal, up to the
      rounding of the logarithms (1e-14 in float32).  Each class adds a term >= 0, so
      the sum is never negative and nothing cancels.

    Raises:
      TypeError: If `log_predictions` is not floating or `targets` not real.
      ValueError: If the shapes differ or have no `axis`.

    Gradient:
      `q/2 log(q/m)` with respect to `log_predictions`, 0 where q = 0; `1/2 log(t/m)`
      with respect to `targets`, taken as 0 where t = 0.  Bounded in `log_predictions`;
      not convex in them, but convex in q.

    Use:
      task: distribution
      activation: log-softmax
      range: [0, log 2]
      robust: yes
      convex: no
      when: The loss should treat both distributions alike and be bounded, or they may
        have no class in common.
      not when: Predictions start far from their targets: use `kl_divergence`, whose
        gradient does not vanish there.

    Reference:
      Lin, "Divergence Measures Based on the Shannon Entropy", IEEE Transactions on
      Information Theory 37, 1991.

    Example:
      >>> q, t = jnp.array([0.5, 0.25, 0.25]), jnp.array([1.0, 0.0, 0.0])
      >>> jaxloss.jensen_shannon(jaxloss.stable.log_probabilities(q), t)
      Array(0.21576156, dtype=float32)
    """
    name = "jensen_shannon"
    log_predictions, targets, axis = _distributions(
        name, log_predictions, targets, axis
    )
    return jnp.sum(_jensen_shannon.term(log_predictions, targets), axis=axis)


@_jit.kernel("axis")
def gaussian_kl(
    means: ArrayLike, log_variances: ArrayLike, *, axis: int = -1
) -> jax.Array:
    r"""KL divergence of a diagonal Gaussian from the standard one.

    Also called: KL of a VAE, KL term of the ELBO, latent loss.

    .. math::
       \mathrm{KL}(\mathcal N(\mu, e^v) \,\|\, \mathcal N(0, 1))
       = \tfrac12 \sum_j \left(\mu_j^2 + e^{v_j} - 1 - v_j\right)

    It is the term of a variational auto-encoder that pulls its posterior to the prior.

    Args:
      means: Floating array of means along `axis`.
      log_variances: Floating array of the same shape; the logarithm v of the variance,
        twice the logarithm of the standard deviation.
      axis: The axis of the components, which are independent.

    Returns:
      Losses >= 0 of the shape of `means` without `axis`, in nats; 0 only at mean 0 and
      log-variance 0, and accurate near it.

    Raises:
      TypeError: If an argument is not floating.
      ValueError: If the shapes differ or have no `axis`.

    Gradient:
      `mu` with respect to `means`, `(exp(v) - 1) / 2` with respect to `log_variances`.
      Convex, smooth.

    Use:
      task: distribution
      activation: none
      range: [0, inf)
      robust: no
      convex: yes
      when: The posterior of a variational auto-encoder is pulled towards its prior.
      not when: The variance is that of an observed target: use `gaussian_nll`.

    Reference:
      Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014.

    Example:
      >>> jaxloss.gaussian_kl(jnp.array([1.0, 0.0]), jnp.array([0.0, 1e-3]))
      Array(0.50000024, dtype=float32)
    """
    name = "gaussian_kl"
    means, log_variances = _checks.floating(
        name, means=means, log_variances=log_variances
    )
    _checks.same_shape(name, means=means, log_variances=log_variances)
    axis = _checks.row_axis(name, axis, "component", means=means)
    terms = _half_square(means) + 0.5 * stable.expm1_excess(log_variances)
    return jnp.sum(terms, axis=axis)


def _distributions(
    loss: str, log_predictions: ArrayLike, targets: ArrayLike, axis: int
) -> tuple[jax.Array, jax.Array, int]:
    (log_q,) = _checks.floating(loss, log_predictions=log_predictions)
    (t,) = _checks.real(loss, log_q, targets=targets)
    _checks.same_shape(loss, log_predictions=log_q, targets=t)
    return log_q, t, _checks.row_axis(loss, axis, "class", log_predictions=log_q)


# --- t (log t - log q) -----------------------------------------------------------
#
# Near agreement these terms differ in sign, and all that is left of their sum is how
# far either side is from summing to 1, by rounding.  Where both sum to 1, adding q - t
# to each term changes nothing, and no term is negative any more.


def _sum(terms: jax.Array, excesses: jax.Array, t: jax.Array, axis: int) -> jax.Array:
    """The sum of terms t (log t - log q), given the terms t (log t - log q) - t + q.

    It is the sum of the latter where both sides have one mass, but for rounding, unless
    the targets are hard, whose terms do not cancel.  The derivatives are those of the
    former.
    """
    total, exact = jnp.sum(terms, axis), jnp.sum(excesses, axis)
    classes = jnp.asarray(terms.shape[axis], terms.dtype)
    # Measured of log-softmaxes in several ways: at most 10 eps (1 + log K), mostly 1.
    rounding = 8 * float(jnp.finfo(terms.dtype).eps) * (1 + jnp.log(classes))
    cancels = jnp.any((t != 0) & (t != 1), axis) & (jnp.abs(total - exact) <= rounding)
    return _replaced(total, jnp.where(cancels, exact, total))


@stable.slopes(lambda total, value: jnp.ones_like(total), None)
def _replaced(total: jax.Array, value: jax.Array) -> jax.Array:
    """`value`, with the derivatives of `total`: known before either is."""
    return value


def _log_ratio(log_q: jax.Array, t: jax.Array) -> jax.Array:
    """`log t - log q`, and 0 where t is 0."""
    present = t != 0
    return jnp.log(jnp.where(present, t, 1)) - jnp.where(present, log_q, 0)


@stable.slopes(lambda log_q, t: -t, lambda log_q, t: _kl_dt(log_q, t))
def _kl_term(log_q: jax.Array, t: jax.Array) -> jax.Array:
    return t * _log_ratio(log_q, t)


@stable.slopes(
    # The mixed derivative is -1 at t = 0 too: that of `-t`, the other slope.
    lambda log_q, t: -jnp.ones_like(t),
    lambda log_q, t: stable.safe_divide(jnp.ones_like(t), t),
)
def _kl_dt(log_q: jax.Array, t: jax.Array) -> jax.Array:
    return jnp.where(t == 0, 0, _log_ratio(log_q, t) + 1)


def _with_log(log_q: jax.Array, log_t: jax.Array) -> tuple[jax.Array, ...]:
    """log q, log t and t, of which the logarithms are 0 where t is."""
    present = log_t != -jnp.inf
    log_q, log_t = (jnp.where(present, x, 0) for x in (log_q, log_t))
    t = jnp.where(present, jnp.exp(log_t), 0)
    # However rare, what is excluded costs infinity, and not 0 * inf.
    tiny = float(jnp.finfo(t.dtype).tiny)
    t = jnp.where(present & (log_q == -jnp.inf), jnp.maximum(t, tiny), t)
    return log_q, log_t, t


@xla.rematerialised_unless_cpu
def _kl_term_with_log(log_q: jax.Array, log_t: jax.Array) -> jax.Array:
    log_q, log_t, t = _with_log(log_q, log_t)
    return t * (log_t - log_q)


# --- t (log t - log q) - t + q ---------------------------------------------------
#
# With x = log q - log t this is t (exp(x) - 1 - x), and its slope t (exp(x) - 1).


@stable.slopes(lambda log_q, t: jnp.exp(log_q), lambda log_q, t: -jnp.ones_like(t))
def _surplus(log_q: jax.Array, t: jax.Array) -> jax.Array:
    """`q - t`, with the digits that the logarithm of q has near t."""
    x = -_log_ratio(log_q, t)
    near = (jnp.abs(x) < 1) & (t != 0)
    return jnp.where(near, t * stable.expm1(jnp.where(near, x, 0)), jnp.exp(log_q) - t)


@stable.slopes(
    # The mixed derivative is -1 at t = 0 too: that of `q - t`, the other slope.
    lambda log_q, t: -jnp.ones_like(t),
    lambda log_q, t: stable.safe_divide(jnp.ones_like(t), t),
)
def _bregman_dt(log_q: jax.Array, t: jax.Array) -> jax.Array:
    return _log_ratio(log_q, t)


@xla.rematerialised_unless_cpu
@stable.slopes(_surplus, _bregman_dt)
def _bregman_term(log_q: jax.Array, t: jax.Array) -> jax.Array:
    return _excess_of(-_log_ratio(log_q, t), jnp.exp(log_q), t)


def _bregman_term_with_log(log_q: jax.Array, log_t: jax.Array) -> jax.Array:
    q = jnp.exp(log_q)
    log_q, log_t, t = _with_log(log_q, log_t)
    return _excess_of(log_q - log_t, q, t)


def _excess_of(x: jax.Array, q: jax.Array, t: jax.Array) -> jax.Array:
    """`t (exp(x) - 1 - x)` for x = log q - log t; q where t is 0."""
    near = (x > -1) & (x < 2) & (t != 0)
    # As in `stable.expm1_excess`: where q = inf, x no longer counts.
    far = q - t * (1 + jnp.minimum(x, 1e3))
    return jnp.where(near, t * excess.series(jnp.where(near, x, 0)), far)


# --- (mu^2 + e^v - 1 - v) / 2 ----------------------------------------------------


@stable.slopes(lambda x: x)
def _half_square(x: jax.Array) -> jax.Array:
    return 0.5 * x * x  # in this order: finite as far as the result is
