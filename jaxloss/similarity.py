"""Which examples of a batch are alike: in-batch contrastive losses.

Every loss here is a function of one matrix, the similarity of each anchor to each
candidate, made by one matmul, and of boolean masks that say which candidates are its
positives and which its negatives.  No array has a batch axis twice and components too.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _contrast, _split, stable


def nt_xent(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Normalised temperature-scaled cross entropy (NT-Xent), per anchor.

    .. math::
       \ell_i = \frac{1}{|P_i|} \sum_{j \in P_i} -\log
       \frac{e^{s_{ij}}}{e^{s_{ij}} + \sum_{k \in N_i} e^{s_{ik}}},
       \qquad s_{ij} = \cos(x_i, x_j) / \tau

    The positives P of an anchor are the other rows with its label, its negatives N all
    rows with another one.  A pair competes with the negatives only, not with the other
    positives.  With two views of each image this is the loss of SimCLR.

    Args:
      embeddings: Floating array `(..., batch, components)`, of any lengths; all rows
        of a batch are compared with each other.
      labels: Integer group ids `(..., batch)`, compared and nothing else, so any ids.
      temperature: Temperature tau > 0 of the cosines, published as 0.07 to 0.5; one
        for all, or one for each anchor.
      where: Boolean mask of the shape of `labels`, default all true.  A masked row,
        such as padding, is neither anchor nor candidate.

    Returns:
      Per-anchor losses >= 0 `(..., batch)`, in nats; 0 for an anchor that is masked or
      has no positive or no negative.  `jaxloss.mean` of them, with the numbers of
      positives as weights, is the mean over all pairs that other libraries return.
      A score has the rounding error of its cosine, a few eps, over the temperature.

    Raises:
      TypeError: If `embeddings` are not floating, `labels` not integer, `where` not
        boolean, or `temperature` not a number.
      ValueError: If `embeddings` have fewer than two axes, a shape does not fit, or
        `temperature` is a Python number <= 0; or if `train.value_and_grad` has cut the
        batch, whose examples this loss compares.

    Gradient:
      With L the logsumexp of an anchor's negatives and `q_j = sigmoid(L - s_j) / |P|`,
      `-q_j` with respect to the score of a positive and `exp(s_k - L) sum(q)` to that
      of a negative.  At right angles to each embedding, and inversely as its length; 0
      at a zero vector, whose cosines are 0.  Not convex.

    Reference:
      Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective",
      NIPS 2016; Chen et al., "A Simple Framework for Contrastive Learning of Visual
      Representations", ICML 2020.

    Example:
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
      >>> jaxloss.nt_xent(x, jnp.array([0, 0, 1, 1]), temperature=0.5)
      Array([0.23954476, 0.23954476, 0.23954476, 0.23954476], dtype=float32)
    """
    name = "nt_xent"
    _split.needs_whole_batch(name, "embeddings", "jaxloss.parallel.nt_xent")
    x, labels, valid = _contrast.batch(name, embeddings, labels, where)
    like = jnp.zeros(labels.shape, x.dtype)
    tau = _checks.parameter(name, like, "(0, inf)", temperature=temperature)
    if like.size == 0:
        return like
    u = stable.unit(x)
    return _contrast.nt_xent(
        _contrast.cosines(u, u), *_contrast.groups(labels, valid), tau
    )


def clip(
    first: ArrayLike,
    second: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Symmetric contrastive loss of CLIP, per pair.

    .. math::
       \ell_i = -\frac{1}{2} \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
       - \frac{1}{2} \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}},
       \qquad s_{ij} = \cos(x_i, y_j) / \tau

    The cross entropy of telling the second of a pair, such as the text of an image,
    among all seconds of the batch, and the first among all firsts: their mean.

    Args:
      first: Floating array `(..., batch, components)`, such as embeddings of images.
      second: Same shape; the other embedding of each pair, such as that of its text.
      temperature: Temperature tau > 0 of the cosines, one for all, or one for each
        pair.  CLIP learns its logarithm, from 0.07 on and never below 0.01: pass
        `jnp.exp(-logit_scale)`.
      where: Boolean mask `(..., batch)`, default all true.  A masked pair, such as
        padding, is neither anchor nor candidate.

    Returns:
      Per-pair losses >= 0 `(..., batch)`, in nats; 0 for a pair that is masked or
      alone.  Their mean is the loss of the paper.  A score has the rounding error of
      its cosine, a few eps, over the temperature.

    Raises:
      TypeError: If an embedding is not floating, `where` not boolean, or `temperature`
        not a number.
      ValueError: If the shapes differ or have fewer than two axes, `where` does not
        fit, or `temperature` is a Python number <= 0; or if `train.value_and_grad` has
        cut the batch, whose pairs this loss compares.

    Gradient:
      Of the sum of the losses, `(p + q) / 2 - 1[i = j]` with respect to the score
      `s_ij`, where p is the softmax along j and q along i.  At right angles to each
      embedding, and inversely as its length; 0 at a zero vector, whose cosines are 0.
      Not convex.

    Reference:
      Radford et al., "Learning Transferable Visual Models From Natural Language
      Supervision", ICML 2021.

    Example:
      >>> images = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> texts = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> jaxloss.clip(images, texts, temperature=0.5)
      Array([0.2847378 , 0.45538443], dtype=float32)
    """
    name = "clip"
    _split.needs_whole_batch(name, "first", "jaxloss.parallel.clip")
    x, y, valid = _contrast.paired(name, where, first=first, second=second)
    like = jnp.zeros(valid.shape, x.dtype)
    tau = _checks.parameter(name, like, "(0, inf)", temperature=temperature)
    if like.size == 0:
        return like
    cosines = _contrast.cosines(stable.unit(x), stable.unit(y))
    masks = _contrast.pairs(valid)
    to_second = _contrast.nt_xent(cosines, *masks, tau)
    to_first = _contrast.nt_xent(jnp.swapaxes(cosines, -1, -2), *masks, tau)
    return 0.5 * (to_second + to_first)
