"""In-batch contrastive losses: each anchor is compared with the whole batch.

Each loss is a function of one matrix, which has the similarity of each anchor to each
candidate and comes from one matmul, and of boolean masks of the positives and negatives
of each anchor.  No array has two batch axes and a component axis.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, _pairs, _whole_batch, stable


@_whole_batch.require("embeddings", "jaxloss.parallel.nt_xent")
@_jit.kernel(ids="labels", temperature="(0, inf)")
def nt_xent(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Normalised temperature-scaled cross entropy (NT-Xent), per anchor.

    Also called: NT-Xent, SimCLR loss, NTXentLoss, ntxent, contrastive loss of a batch.

    .. math::
       \ell_i = \frac{1}{|P_i|} \sum_{j \in P_i} -\log
       \frac{e^{s_{ij}}}{e^{s_{ij}} + \sum_{k \in N_i} e^{s_{ik}}},
       \qquad s_{ij} = \cos(x_i, x_j) / \tau

    The positives P of an anchor are the other rows with its label; its negatives N are
    all rows with another label.  A pair competes with the negatives only, not with the
    other positives.  With two views of each image this is the loss of SimCLR.

    Args:
      embeddings: Floating array `(..., batch, components)`, normalised or not; all rows
        of a batch are compared with each other.
      labels: Integer group ids `(..., batch)`; they are only compared with each other,
        so any integers are valid.
      temperature: Temperature tau > 0 of the cosines, published as 0.07 to 0.5; one
        for all, or one for each anchor.
      where: Boolean mask of the shape of `labels`, default all true.  A masked row,
        such as padding, is neither anchor nor candidate.

    Returns:
      Per-anchor losses >= 0 `(..., batch)`, in nats; 0 for an anchor that is masked or
      has no positive or no negative.  Their `jaxloss.mean`, with the numbers of
      positives as weights, is the mean over all pairs that other libraries return.  The
      rounding error of a score is that of its cosine, a few eps, divided by the
      temperature.

    Raises:
      TypeError: If `embeddings` are not floating, `labels` not integer, `where` not
        boolean, or `temperature` not a number.
      ValueError: If `embeddings` have fewer than two axes, a shape does not fit, or
        `temperature` is a Python number <= 0; or if `train.value_and_grad` has split
        the batch, because this loss compares its examples.

    Gradient:
      With L the logsumexp of the negatives of an anchor and
      `q_j = sigmoid(L - s_j) / |P|`: `-q_j` with respect to the score of a positive,
      and `exp(s_k - L) sum(q)` with respect to that of a negative.  With respect to an
      embedding, the gradient is orthogonal to it and inversely proportional to its
      length; it is 0 for a zero vector, whose cosines are 0.  Not convex.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: yes
      convex: no
      when: There are two or more views of each example and no labels, as in SimCLR.
      not when: Groups are large classes, whose members should all attract each other:
        use `supervised_contrastive`.

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
    x, labels, valid = _pairs.batch(name, embeddings, labels, where)
    like = jnp.zeros(labels.shape, x.dtype)
    tau = _checks.parameter(name, like, temperature=temperature)
    if like.size == 0:
        return like
    u = stable.unit(x)
    return _pairs.nt_xent(_pairs.cosines(u, u), *_pairs.groups(labels, valid), tau)


@_whole_batch.require("embeddings", "jaxloss.parallel.supervised_contrastive")
@_jit.kernel(ids="labels", temperature="(0, inf)")
def supervised_contrastive(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""Supervised contrastive loss (SupCon, its `out` form), per anchor.

    Also called: SupCon, SupConLoss, supervised contrastive loss.

    .. math::
       \ell_i = \frac{1}{|P_i|} \sum_{j \in P_i} -\log
       \frac{e^{s_{ij}}}{\sum_{k \ne i} e^{s_{ik}}},
       \qquad s_{ij} = \cos(x_i, x_j) / \tau

    The positives P of an anchor are the other rows with its label.  A pair competes
    with all other rows, including the other positives.  In `nt_xent` it does not; both
    are equal where every group is a pair.

    Args:
      embeddings: Floating array `(..., batch, components)`, normalised or not; all rows
        of a batch are compared with each other.
      labels: Integer group ids `(..., batch)`; they are only compared with each other,
        so any integers are valid.
      temperature: Temperature tau > 0 of the cosines, published as 0.07 and 0.1; one
        for all, or one for each anchor.
      where: Boolean mask of the shape of `labels`, default all true.  A masked row,
        such as padding, is neither anchor nor candidate.

    Returns:
      Per-anchor losses >= `log(|P|)` `(..., batch)`, in nats; 0 for an anchor that is
      masked or has no positive.  The rounding error of a score is that of its cosine, a
      few eps, divided by the temperature.

    Raises:
      TypeError: If `embeddings` are not floating, `labels` not integer, `where` not
        boolean, or `temperature` not a number.
      ValueError: If `embeddings` have fewer than two axes, a shape does not fit, or
        `temperature` is a Python number <= 0; or if `train.value_and_grad` has split
        the batch, because this loss compares its examples.

    Gradient:
      `p_j - 1[j in P] / |P|` with respect to the scores, where p is the softmax over
      the other rows.  With respect to an embedding, the gradient is orthogonal to it
      and inversely proportional to its length; it is 0 for a zero vector, whose cosines
      are 0.  Not convex.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: yes
      convex: no
      when: Labels say which rows belong together, and a batch has several of each
        group.
      not when: Only views of the same example are alike: use `nt_xent`.

    Reference:
      Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020 (eq. 2).

    Example:
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
      >>> jaxloss.supervised_contrastive(x, jnp.array([0, 0, 0, 1]), temperature=0.5)
      Array([0.81880635, 0.81880635, 1.0986123 , 0.        ], dtype=float32)
    """
    name = "supervised_contrastive"
    x, labels, valid = _pairs.batch(name, embeddings, labels, where)
    like = jnp.zeros(labels.shape, x.dtype)
    tau = _checks.parameter(name, like, temperature=temperature)
    if like.size == 0:
        return like
    u = stable.unit(x)
    masks = _pairs.groups(labels, valid)
    return _pairs.supervised(_pairs.cosines(u, u), *masks, tau)


@_whole_batch.require("first", "jaxloss.parallel.clip")
@_jit.kernel("normalize", temperature="(0, inf)")
def clip(
    first: ArrayLike,
    second: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
    normalize: bool = True,
) -> jax.Array:
    r"""Symmetric contrastive loss of CLIP, per pair.

    Also called: CLIP loss, symmetric InfoNCE, image-text contrastive loss,
    MultipleNegativesSymmetricRankingLoss.

    .. math::
       \ell_i = -\frac{1}{2} \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
       - \frac{1}{2} \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}},
       \qquad s_{ij} = \cos(x_i, y_j) / \tau

    The loss is the mean of two cross entropies: of finding the second of a pair, such
    as the text of an image, among all rows of `second`, and of finding the first among
    all rows of `first`.

    Args:
      first: Floating array `(..., batch, components)`, such as embeddings of images.
      second: Same shape; the other embedding of each pair, such as that of its text.
      temperature: Temperature tau > 0 of the cosines, one for all, or one for each
        pair.  CLIP learns `logit_scale = -log(tau)`, starting at tau = 0.07 and limited
        to tau >= 0.01: pass `jnp.exp(-logit_scale)`.
      where: Boolean mask `(..., batch)`, default all true.  A masked pair, such as
        padding, is neither anchor nor candidate.
      normalize: Whether scores are cosines.  If not, they are the inner products
        `x . y / tau`, as in dense retrieval, and must be finite.

    Returns:
      Per-pair losses >= 0 `(..., batch)`, in nats; 0 for a pair that is masked or
      alone.  Their mean is the loss of the paper.  The rounding error of a score is
      that of its cosine, a few eps, divided by the temperature.

    Raises:
      TypeError: If an embedding is not floating, `where` not boolean, `normalize` not a
        bool, or `temperature` not a number.
      ValueError: If the shapes differ or have fewer than two axes, `where` does not
        fit, or `temperature` is a Python number <= 0; or if `train.value_and_grad` has
        split the batch, because this loss compares its pairs.

    Gradient:
      For the sum of the losses, `(p + q) / 2 - 1[i = j]` with respect to the score
      `s_ij`, where p is the softmax along j and q along i.  With cosines, the gradient
      with respect to an embedding is orthogonal to it and inversely proportional to its
      length; it is 0 for a zero vector, whose cosines are 0.  With inner products, the
      loss is convex in either embedding.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: for normalize
      convex: for not normalize
      when: There are pairs of two kinds, such as images and texts, and each should be
        found from the other.
      not when: The batch is sharded over many devices, or too small for a softmax: use
        `siglip`.

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
    x, y, valid = _pairs.examples(name, where, first=first, second=second)
    like = jnp.zeros(valid.shape, x.dtype)
    tau = _checks.parameter(name, like, temperature=temperature)
    x, y = _pairs.directions(name, normalize, x, y)
    if like.size == 0:
        return like
    cosines = _pairs.cosines(x, y)
    masks = _pairs.pairs(valid)
    to_second = _pairs.info_nce(cosines, *masks, tau)
    to_first = _pairs.info_nce(jnp.swapaxes(cosines, -1, -2), *masks, tau)
    return 0.5 * (to_second + to_first)


@_whole_batch.require("anchors", "jaxloss.parallel.info_nce")
@_jit.kernel("normalize", temperature="(0, inf)")
def info_nce(
    anchors: ArrayLike,
    positives: ArrayLike,
    *,
    temperature: float | jax.Array,
    where: ArrayLike | None = None,
    normalize: bool = True,
) -> jax.Array:
    r"""InfoNCE with in-batch negatives, per anchor.

    Also called: InfoNCE, MultipleNegativesRankingLoss, MNRL, in-batch negatives,
    in-batch softmax, N-pairs loss, MoCo loss, CPC loss.

    .. math::
       \ell_i = -\log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}},
       \qquad s_{ij} = \cos(x_i, y_j) / \tau

    The loss is the cross entropy of finding the positive of an anchor among those of
    the whole batch.  It is that of one direction; `clip` is the mean of both.

    Args:
      anchors: Floating array `(..., batch, components)`, such as queries.
      positives: Same shape; the positive of each anchor, which is a negative of all
        other anchors.
      temperature: Temperature tau > 0 of the cosines, published as 0.05 to 0.2; one
        for all, or one for each anchor.
      where: Boolean mask `(..., batch)`, default all true.  A masked pair, such as
        padding, is neither anchor nor candidate.
      normalize: Whether scores are cosines.  If not, they are the inner products
        `x . y / tau`, as in dense retrieval, and must be finite.

    Returns:
      Per-anchor losses >= 0 `(..., batch)`, in nats; 0 for a pair that is masked or
      alone.  The rounding error of a score is that of its cosine, a few eps, divided by
      the temperature.  The log of the batch size minus the mean loss is a lower bound
      of the mutual information.

    Raises:
      TypeError: If an embedding is not floating, `where` not boolean, `normalize` not a
        bool, or `temperature` not a number.
      ValueError: If the shapes differ or have fewer than two axes, `where` does not
        fit, or `temperature` is a Python number <= 0; or if `train.value_and_grad` has
        split the batch, because this loss compares its pairs.

    Gradient:
      `p - 1[i = j]` with respect to the score `s_ij`, where p is the softmax along j.
      With cosines, the gradient with respect to an embedding is orthogonal to it and
      inversely proportional to its length; it is 0 for a zero vector, whose cosines are
      0.  With inner products, the loss is convex in either embedding.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: for normalize
      convex: for not normalize
      when: Each query should find its answer among those of the whole batch, in one
        direction.
      not when: Both directions matter: use `clip`.

    Reference:
      van den Oord et al., "Representation Learning with Contrastive Predictive
      Coding", 2018.

    Example:
      >>> queries = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> answers = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> jaxloss.info_nce(queries, answers, temperature=0.5)
      Array([0.4425476 , 0.21762171], dtype=float32)
    """
    name = "info_nce"
    x, y, valid = _pairs.examples(name, where, anchors=anchors, positives=positives)
    like = jnp.zeros(valid.shape, x.dtype)
    tau = _checks.parameter(name, like, temperature=temperature)
    x, y = _pairs.directions(name, normalize, x, y)
    if like.size == 0:
        return like
    cosines = _pairs.cosines(x, y)
    return _pairs.info_nce(cosines, *_pairs.pairs(valid), tau)


@_whole_batch.require("first", "jaxloss.parallel.siglip")
@_jit.kernel("normalize", temperature="(0, inf)", bias="(-inf, inf)")
def siglip(
    first: ArrayLike,
    second: ArrayLike,
    *,
    temperature: float | jax.Array,
    bias: float | jax.Array,
    where: ArrayLike | None = None,
    normalize: bool = True,
) -> jax.Array:
    r"""Sigmoid loss of SigLIP: binary decisions over all pairs of a batch.

    Also called: SigLIP loss, sigmoid contrastive loss.

    .. math::
       \ell_i = \log(1 + e^{-s_{ii}}) + \sum_{j \ne i} \log(1 + e^{s_{ij}}),
       \qquad s_{ij} = \cos(x_i, y_j) / \tau + b

    The loss is a binary cross entropy for each combination of a row of `first` and a
    row of `second`: a pair or not.  The sum over the batch is symmetric in both.

    Args:
      first: Floating array `(..., batch, components)`, such as embeddings of images.
      second: Same shape; the other embedding of each pair, such as that of its text.
      temperature: Temperature tau > 0 of the cosines, one for all, or one for each row
        of `first`.  The paper learns `log(1 / tau)`, starting at log 10.
      bias: Number added to each score, one for all, or one for each row of `first`.
        The paper learns it, starting at -10, so that the many negatives cost little at
        the start.
      where: Boolean mask `(..., batch)`, default all true.  A masked pair, such as
        padding, is neither anchor nor candidate.
      normalize: Whether scores are cosines.  If not, they are the inner products
        `x . y / tau`, as in dense retrieval, and must be finite.

    Returns:
      Losses >= 0 `(..., batch)`, in nats, one for each row of `first`: a sum over the
      batch; 0 for a masked pair.  Their mean is the loss of the paper.  The rounding
      error of a score is that of its cosine, a few eps, divided by the temperature.

    Raises:
      TypeError: If an embedding is not floating, `where` not boolean, `normalize` not a
        bool, or `temperature` or `bias` not a number.
      ValueError: If the shapes differ or have fewer than two axes, `where` does not
        fit, or `temperature` is a Python number <= 0; or if `train.value_and_grad` has
        split the batch, because this loss compares its pairs.

    Gradient:
      `sigmoid(s_ij) - 1[i = j]` with respect to the score `s_ij`.  With cosines, the
      gradient with respect to an embedding is orthogonal to it and inversely
      proportional to its length; it is 0 for a zero vector, whose cosines are 0.  With
      inner products, the loss is convex in either embedding.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: for normalize
      convex: for not normalize
      when: There are pairs of two kinds, and an example may match several; or the batch
        is small or sharded.
      not when: Exactly one candidate is right and only its rank matters: use `clip`.

    Reference:
      Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.

    Example:
      >>> images = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> texts = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> jaxloss.siglip(images, texts, temperature=0.5, bias=-1.0)
      Array([1.2348106, 0.8205971], dtype=float32)
    """
    name = "siglip"
    x, y, valid = _pairs.examples(name, where, first=first, second=second)
    like = jnp.zeros(valid.shape, x.dtype)
    tau = _checks.parameter(name, like, temperature=temperature)
    bias = _checks.parameter(name, like, bias=bias)
    x, y = _pairs.directions(name, normalize, x, y)
    if like.size == 0:
        return like
    cosines = _pairs.cosines(x, y)
    return _pairs.sigmoid(cosines, *_pairs.pairs(valid), tau, bias)
