"""Cross entropy of a linear layer, without the logits of all tokens and classes.

The last layer of a language model has more outputs than all others: with 8192 tokens
and 128256 classes, the logits in float32 and their gradient are 8 GB.  Here only one
block of them is in memory at a time, in float32 even for bfloat16 factors.  The results
are those of `jaxloss.softmax_cross_entropy(hidden @ kernel, labels)`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _jit
from jaxloss.kernels import _arguments, _rules
from jaxloss.kernels._arguments import Layout, Memory
from jaxloss.kernels._rules import Knobs
from jaxloss.reduce import Mean
from jaxloss.stable import sharding


@_jit.kernel(
    *("kernel_layout", "memory", "block", "implementation"),
    ids="labels",
    left_out={"label_smoothing": 0, "z_loss": 0, "temperature": 1},
    explicit=True,
    label_smoothing="[0, 1]",
    z_loss="[0, inf)",
    soft_cap="(0, inf)",
    temperature="(0, inf)",
)
def linear_softmax_cross_entropy(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
    label_smoothing: float | jax.Array = 0.0,
    z_loss: float | jax.Array = 0.0,
    soft_cap: float | jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
    kernel_layout: Layout = "dv",
    memory: Memory = "auto",
    block: tuple[int, int] | None = None,
    implementation: str | None = None,
) -> Mean:
    r"""Mean cross entropy of class ids under a linear layer, block by block.

    .. math::
       \frac{\sum_i m_i w_i \ell_i}{\sum_i m_i w_i}, \qquad
       \ell = L - (1-\varepsilon) z_y - \varepsilon \bar z + \zeta L^2, \qquad
       z = \frac{1}{T}\, c \tanh\frac{h W + b}{c}

    L is the logsumexp of the logits z; their mean is over the classes that exist.  For
    N tokens, D features and V classes, the temporary memory in bytes is about

    * fast: 4 (n V + 4 B (n + D) + 3 N D); the logits of a part of n tokens are kept
      for the gradient, so there are three matrix products;
    * lean: 4 (3 N B + 3 B D + 2 N D); the logits are computed twice, so there are four;

    instead of 8 N V.  On a CPU n is 256, and B, the number of classes of a block, is at
    most 1024, or 8192 for lean with 16 bits; on an accelerator n is at most 2048, and B
    at most 8192, for lean about V / 64.  For a 16-bit kernel, fast sums the
    gradient in float32, which takes another 4 D V.

    Args:
      hidden: Floating array `(..., D)`, one row per token.
      kernel: Floating array `(D, V)`, or `(V, D)` with `kernel_layout="vd"`.  If it has
        the same 16-bit dtype as `hidden`, products have 16-bit factors and float32
        sums; otherwise both are widened to float32 at least.
      labels: Integer class ids in [0, V), of the shape of `hidden` without features.
      bias: Floating array `(V,)`, default 0; -inf for a class that does not exist,
        such as a padded one.
      weights: Weights w >= 0 of the shape of `labels`, default 1.  A weight of 0
        removes a token, even with NaN or an invalid label.
      where: Boolean mask m of the shape of `labels`; a masked token has no effect,
        whatever its values are.
      label_smoothing: Share, in [0, 1], of each label that is spread evenly over the
        classes that exist; a scalar.  A Python 0 costs nothing.
      z_loss: Coefficient >= 0 of `jaxloss.z_loss`; a scalar.
      soft_cap: c > 0, an upper bound of the size of the logits (before the
        temperature); `None` for no bound.
      temperature: T > 0, by which the logits are divided; a scalar.
      kernel_layout: `"dv"` or `"vd"`, the latter for the transposed kernel, such as
        that of an embedding table.
      memory: `"fast"`, `"lean"`, or `"auto"`: fast, except for a 16-bit kernel with
        more features than a fourth of the tokens.
      block: (tokens, classes) of a block; default: what suits this device.  Under
        `jit`, a kernel whose classes are sharded is gathered, unless one block has all
        classes; tokens may be sharded.
      implementation: `"xla"`, the blocks described above; `"dense"`, the same formula
        with all logits at once, for reference; `None` is `"xla"`.

    Returns:
      A `jaxloss.Mean`, at least float32: the weighted sum of the losses in nats, and
      the sum of the weights.  NaN if a token that is not masked has an invalid label,
      +inf if the class of its label does not exist.

    Raises:
      TypeError: If an array has a wrong dtype, or `block` does not have integers.
      ValueError: If a shape does not match, a Python number is out of range, a name
        is unknown, or, inside `shard_map`, each device has other classes.

    Gradient:
      With p the softmax and v the classes that exist, `w (p - 1[j = y])` with respect
      to z, plus `w (eps (1[j = y] - v / K) + 2 zeta L p)`, and through the linear layer
      to `hidden`, `kernel` and `bias` (0 where it is -inf).  Products are computed only
      for what is differentiated.  Also with respect to `weights` (the losses) and every
      number.  Forward mode and second derivatives work; the memory of the latter is not
      bounded as above.

    Reference:
      Hsu et al., "Liger Kernel: Efficient Triton Kernels for LLM Training", 2024 (the
      gradient beside the loss); Wijmans et al., "Cut Your Losses in Large-Vocabulary
      Language Models", ICLR 2025 (blocks of classes).

    Example:
      >>> from jaxloss import kernels
      >>> hidden = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> kernel = jnp.array([[20.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
      >>> loss = kernels.linear_softmax_cross_entropy(hidden, kernel, jnp.array([0, 1]))
      >>> loss.compute()
      Array(0.11977238, dtype=float32)
    """
    numbers = label_smoothing, z_loss, soft_cap, temperature
    options = _arguments.Options(kernel_layout, memory, block, implementation)
    options = options._replace(cut=_arguments.classes_are_cut(kernel, kernel_layout))
    mean = sharding.automatic(_mean)
    return mean(hidden, kernel, labels, bias, weights, where, numbers, options)


@_jit.kernel(
    *("kernel_layout", "block", "implementation"),
    ids="labels",
    left_out={"temperature": 1},
    explicit=True,
    soft_cap="(0, inf)",
    temperature="(0, inf)",
)
def linear_token_log_probs(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    where: ArrayLike | None = None,
    soft_cap: float | jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
    kernel_layout: Layout = "dv",
    block: tuple[int, int] | None = None,
    implementation: str | None = None,
) -> jax.Array:
    r"""Log-probability of each token under a linear layer, block by block.

    .. math:: \log p_y = z_y - L, \qquad z = \frac{1}{T}\, c \tanh\frac{h W + b}{c}

    Sum it over the tokens of each sequence, and pass the sums to a preference loss.
    The gradient of such a loss is known only at the end, so the logits are computed
    again for it.  The temporary memory in bytes is about 4 (3 N B + 3 B D + 2 N D) for
    N tokens, D features and blocks of B classes.

    Args:
      hidden: Floating array `(..., D)`, one row per token.
      kernel: Floating array `(D, V)`, or `(V, D)` with `kernel_layout="vd"`.
      labels: Integer class ids in [0, V), of the shape of `hidden` without features.
      bias: Floating array `(V,)`, default 0; -inf for a class that does not exist.
      where: Boolean mask of the shape of `labels`; a masked token has no effect,
        whatever its values are.
      soft_cap: c > 0, an upper bound of the size of the logits (before the
        temperature); `None` for no bound.
      temperature: T > 0, by which the logits are divided; a scalar.
      kernel_layout: `"dv"` or `"vd"`, the latter for the transposed kernel.
      block: (tokens, classes) of a block; default: what suits this device.
      implementation: `"xla"`, in blocks; `"dense"`, the same formula with all logits at
        once, for reference; `None` is `"xla"`.

    Returns:
      One number <= 0 per token, in nats, at least float32; 0 where masked, -inf if the
      class of the label does not exist, NaN if the label is not one of the classes.

    Raises:
      TypeError: If an array has a wrong dtype, or `block` does not have integers.
      ValueError: If a shape does not match, a Python number is out of range, a name
        is unknown, or, inside `shard_map`, each device has other classes.

    Gradient:
      `1[j = y] - p` with respect to z, and through the linear layer to `hidden`,
      `kernel` and `bias`.  Forward mode and second derivatives work.

    Reference:
      Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", ICLR 2025.

    Example:
      >>> from jaxloss import kernels
      >>> hidden, kernel = jnp.array([[[1.0], [0.0]]]), jnp.array([[2.0, 0.0, 0.0]])
      >>> kernels.linear_token_log_probs(hidden, kernel, jnp.array([[0, 2]]))
      Array([[-0.23954476, -1.0986123 ]], dtype=float32)
    """
    # Whatever the dtype, the gradient of this is summed in float32.
    options = _arguments.Options(kernel_layout, "lean", block, implementation)
    options = options._replace(cut=_arguments.classes_are_cut(kernel, kernel_layout))
    log_probs = sharding.automatic(_log_probs)
    numbers = soft_cap, temperature
    return log_probs(hidden, kernel, labels, bias, where, numbers, options)


@_jit.kernel(
    *("kernel_layout", "block", "implementation"),
    ids="labels",
    left_out={"temperature": 1},
    explicit=True,
    soft_cap="(0, inf)",
    temperature="(0, inf)",
)
def linear_softmax_cross_entropy_with_z(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    where: ArrayLike | None = None,
    soft_cap: float | jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
    kernel_layout: Layout = "dv",
    block: tuple[int, int] | None = None,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    r"""Cross entropy and z-loss of each token under a linear layer.

    .. math::
       \ell = (L - z_y, \; L^2), \qquad z = \frac{1}{T}\, c \tanh\frac{h W + b}{c}

    L is the logsumexp of the logits z.  `linear_softmax_cross_entropy` returns the mean
    of the sum of both losses, in three matrix products with the gradient.  This
    function returns both per token, so that you can weight and log them.  Its gradient
    computes the logits again: it takes four products, and the memory of
    `linear_token_log_probs`.

    Args:
      hidden: Floating array `(..., D)`, one row per token.
      kernel: Floating array `(D, V)`, or `(V, D)` with `kernel_layout="vd"`.
      labels: Integer class ids in [0, V), of the shape of `hidden` without features.
      bias: Floating array `(V,)`, default 0; -inf for a class that does not exist.
      where: Boolean mask of the shape of `labels`; a masked token has no effect,
        whatever its values are.
      soft_cap: c > 0, an upper bound of the size of the logits (before the
        temperature); `None` for no bound.
      temperature: T > 0, by which the logits are divided; a scalar.
      kernel_layout: `"dv"` or `"vd"`, the latter for the transposed kernel.
      block: (tokens, classes) of a block; default: what suits this device.
      implementation: `"xla"`, in blocks; `"dense"`, the same formula with all logits at
        once, for reference; `None` is `"xla"`.

    Returns:
      The cross entropy of each token, in nats, and its z-loss, in nats squared, at
      least float32.  Both are >= 0, 0 where masked, and NaN if the label is not one of
      the classes.  The cross entropy is +inf if the class of the label does not exist.

    Raises:
      TypeError: If an array has a wrong dtype, or `block` does not have integers.
      ValueError: If a shape does not match, a Python number is out of range, a name
        is unknown, or, inside `shard_map`, each device has other classes.

    Gradient:
      With p the softmax, `p - 1[j = y]` of the first and `2 L p` of the second with
      respect to z, and through the linear layer to `hidden`, `kernel` and `bias`.
      Forward mode and second derivatives work.

    Reference:
      Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways", JMLR 24 (2023).

    Example:
      >>> from jaxloss import kernels
      >>> hidden, kernel = jnp.array([[1.0], [0.0]]), jnp.array([[2.0, 0.0, 0.0]])
      >>> cross_entropy, z = kernels.linear_softmax_cross_entropy_with_z(
      ...     hidden, kernel, jnp.array([0, 2])
      ... )
      >>> cross_entropy + 1e-4 * z
      Array([0.24004634, 1.098733  ], dtype=float32)
    """
    options = _arguments.Options(kernel_layout, "lean", block, implementation)
    options = options._replace(cut=_arguments.classes_are_cut(kernel, kernel_layout))
    losses = sharding.automatic(_with_z)
    numbers = soft_cap, temperature
    return losses(hidden, kernel, labels, bias, where, numbers, options)


def _mean(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    bias: ArrayLike | None,
    weights: ArrayLike | None,
    where: ArrayLike | None,
    numbers: tuple,
    options: _arguments.Options,
) -> Mean:
    name, layout = "linear_softmax_cross_entropy", options.layout
    label_smoothing, z_loss, soft_cap, temperature = numbers
    tokens = _arguments.tokens_of(
        name, hidden, kernel, labels, bias, weights, where, layout
    )
    head = _arguments.head_of(name, tokens, soft_cap, temperature)
    weight = jnp.sum(tokens.weights)
    like = jnp.zeros((), head.wide)
    knobs = Knobs(
        _arguments.number(name, like, label_smoothing=label_smoothing),
        _arguments.number(name, like, z_loss=z_loss),
    )
    smooth = knobs.label_smoothing is not None
    half = head.kernel.dtype.itemsize < 4
    plan = _arguments.plan_of(name, head, options, half, smooth)
    total = _rules.dense_total if _arguments.is_dense(name, options) else _rules.total
    return Mean(total(plan, head, tokens.ids, tokens.weights, knobs), weight)


def _log_probs(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    bias: ArrayLike | None,
    where: ArrayLike | None,
    numbers: tuple,
    options: _arguments.Options,
) -> jax.Array:
    name, layout = "linear_token_log_probs", options.layout
    tokens = _arguments.tokens_of(
        name, hidden, kernel, labels, bias, None, where, layout
    )
    head = _arguments.head_of(name, tokens, *numbers)
    plan = _arguments.plan_of(name, head, options, False, False)
    nll = _rules.dense_nll if _arguments.is_dense(name, options) else _rules.nll
    found = jnp.where(tokens.weights == 0, 0, -nll(plan, head, tokens.ids))
    return found.reshape(tokens.shape)


def _with_z(
    hidden: ArrayLike,
    kernel: ArrayLike,
    labels: ArrayLike,
    bias: ArrayLike | None,
    where: ArrayLike | None,
    numbers: tuple,
    options: _arguments.Options,
) -> tuple[jax.Array, jax.Array]:
    name = "linear_softmax_cross_entropy_with_z"
    tokens = _arguments.tokens_of(
        name, hidden, kernel, labels, bias, None, where, options.layout
    )
    head, counts = _arguments.head_of(name, tokens, *numbers), tokens.weights != 0
    plan = _arguments.plan_of(name, head, options, False, False)
    dense = _arguments.is_dense(name, options)
    losses = _rules.dense_nll_and_z if dense else _rules.nll_and_z
    found = losses(plan, head, tokens.ids)
    cross_entropy, z = (jnp.where(counts, x, 0).reshape(tokens.shape) for x in found)
    return cross_entropy, z
