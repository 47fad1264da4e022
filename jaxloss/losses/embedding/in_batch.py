"""Which examples of a batch are alike: in-batch contrastive losses.

Every loss here is a function of one matrix, the similarity of each anchor to each
candidate, made by one matmul, and of boolean masks that say which candidates are its
positives and which its negatives.  No array has a batch axis twice and components too.
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

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: yes
      convex: no
      when: Two or more views of each example, and no labels: SimCLR.
      not when: Groups are large classes, whose members should all attract:
        `supervised_contrastive`.

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
    with all other rows, the other positives included: unlike in `nt_xent`, which it
    equals where every group is a pair.

    Args:
      embeddings: Floating array `(..., batch, components)`, of any lengths; all rows
        of a batch are compared with each other.
      labels: Integer group ids `(..., batch)`, compared and nothing else, so any ids.
      temperature: Temperature tau > 0 of the cosines, published as 0.07 and 0.1; one
        for all, or one for each anchor.
      where: Boolean mask of the shape of `labels`, default all true.  A masked row,
        such as padding, is neither anchor nor candidate.

    Returns:
      Per-anchor losses >= `log(|P|)` `(..., batch)`, in nats; 0 for an anchor that is
      masked or has no positive.  A score has the rounding error of its cosine, a few
      eps, over the temperature.

    Raises:
      TypeError: If `embeddings` are not floating, `labels` not integer, `where` not
        boolean, or `temperature` not a number.
      ValueError: If `embeddings` have fewer than two axes, a shape does not fit, or
        `temperature` is a Python number <= 0; or if `train.value_and_grad` has cut the
        batch, whose examples this loss compares.

    Gradient:
      `p_j - 1[j in P] / |P|` with respect to the scores, where p is the softmax of
      the other rows.  At right angles to each embedding, and inversely as its length;
      0 at a zero vector, whose cosines are 0.  Not convex.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: yes
      convex: no
      when: Labels say which rows belong together, several in a batch.
      not when: Only views of the same example are alike: `nt_xent`.

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
      normalize: Whether scores are cosines; else they are the inner products
        `x . y / tau`, as in dense retrieval, which have to be finite numbers.

    Returns:
      Per-pair losses >= 0 `(..., batch)`, in nats; 0 for a pair that is masked or
      alone.  Their mean is the loss of the paper.  A score has the rounding error of
      its cosine, a few eps, over the temperature.

    Raises:
      TypeError: If an embedding is not floating, `where` not boolean, `normalize` no
        bool, or `temperature` not a number.
      ValueError: If the shapes differ or have fewer than two axes, `where` does not
        fit, or `temperature` is a Python number <= 0; or if `train.value_and_grad` has
        cut the batch, whose pairs this loss compares.

    Gradient:
      Of the sum of the losses, `(p + q) / 2 - 1[i = j]` with respect to the score
      `s_ij`, where p is the softmax along j and q along i.  Of cosines, at right angles
      to each embedding, and inversely as its length; 0 at a zero vector, whose cosines
      are 0.  Of inner products, convex in either embedding.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: for normalize
      convex: for not normalize
      when: Pairs of two kinds, such as images and texts, each to be found from the
        other.
      not when: The batch is cut over many devices, or too small for a softmax:
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
    x, y, valid = _pairs.paired(name, where, first=first, second=second)
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

    The cross entropy of telling the positive of an anchor among those of the whole
    batch.  In one direction; `clip` is the mean of both.

    Args:
      anchors: Floating array `(..., batch, components)`, such as queries.
      positives: Same shape; the positive of each anchor, and a negative of all others.
      temperature: Temperature tau > 0 of the cosines, published as 0.05 to 0.2; one
        for all, or one for each anchor.
      where: Boolean mask `(..., batch)`, default all true.  A masked pair, such as
        padding, is neither anchor nor candidate.
      normalize: Whether scores are cosines; else they are the inner products
        `x . y / tau`, as in dense retrieval, which have to be finite numbers.

    Returns:
      Per-anchor losses >= 0 `(..., batch)`, in nats; 0 for a pair that is masked or
      alone.  A score has the rounding error of its cosine, a few eps, over the
      temperature.  The log of the batch size less the mean loss is a lower bound of
      the mutual information.

    Raises:
      TypeError: If an embedding is not floating, `where` not boolean, `normalize` no
        bool, or `temperature` not a number.
      ValueError: If the shapes differ or have fewer than two axes, `where` does not
        fit, or `temperature` is a Python number <= 0; or if `train.value_and_grad` has
        cut the batch, whose pairs this loss compares.

    Gradient:
      `p - 1[i = j]` with respect to the score `s_ij`, where p is the softmax along j.
      Of cosines, at right angles to each embedding, and inversely as its length; 0 at a
      zero vector, whose cosines are 0.  Of inner products, convex in either embedding.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: for normalize
      convex: for not normalize
      when: Queries are to find their answers, in one direction, among those of the
        whole batch.
      not when: Both directions matter: `clip`.

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
    x, y, valid = _pairs.paired(name, where, anchors=anchors, positives=positives)
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
    r"""Pairwise sigmoid loss of SigLIP, per first of a pair.

    Also called: SigLIP loss, sigmoid contrastive loss.

    .. math::
       \ell_i = \log(1 + e^{-s_{ii}}) + \sum_{j \ne i} \log(1 + e^{s_{ij}}),
       \qquad s_{ij} = \cos(x_i, y_j) / \tau + b

    A binary classification of each combination of a first and a second: a pair or
    not.  The sum over the batch is the same with the roles exchanged.

    Args:
      first: Floating array `(..., batch, components)`, such as embeddings of images.
      second: Same shape; the other embedding of each pair, such as that of its text.
      temperature: Temperature tau > 0 of the cosines, one for all, or one for each
        first.  The paper learns `log(1 / tau)`, from log 10 on.
      bias: What is added to each score, one for all, or one for each first; learnt
        from -10 on, so that the many negatives are no surprise.
      where: Boolean mask `(..., batch)`, default all true.  A masked pair, such as
        padding, is neither anchor nor candidate.
      normalize: Whether scores are cosines; else they are the inner products
        `x . y / tau`, as in dense retrieval, which have to be finite numbers.

    Returns:
      Losses >= 0 `(..., batch)`, in nats, each a sum over the batch; 0 for a masked
      pair.  Their mean is the loss of the paper.  A score has the rounding error of
      its cosine, a few eps, over the temperature.

    Raises:
      TypeError: If an embedding is not floating, `where` not boolean, `normalize` no
        bool, or `temperature` or `bias` not a number.
      ValueError: If the shapes differ or have fewer than two axes, `where` does not
        fit, or `temperature` is a Python number <= 0; or if `train.value_and_grad` has
        cut the batch, whose pairs this loss compares.

    Gradient:
      `sigmoid(s_ij) - 1[i = j]` with respect to the score `s_ij`.  Of cosines, at
      right angles to each embedding, and inversely as its length; 0 at a zero vector,
      whose cosines are 0.  Of inner products, convex in either embedding.

    Use:
      task: embedding
      activation: none (embeddings)
      range: [0, inf)
      robust: for normalize
      convex: for not normalize
      when: Pairs of two kinds, of which some may match several, or batches of any size.
      not when: Exactly one candidate is right and only its rank counts: `clip`.

    Reference:
      Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.

    Example:
      >>> images = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> texts = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> jaxloss.siglip(images, texts, temperature=0.5, bias=-1.0)
      Array([1.2348106, 0.8205971], dtype=float32)
    """
    name = "siglip"
    x, y, valid = _pairs.paired(name, where, first=first, second=second)
    like = jnp.zeros(valid.shape, x.dtype)
    tau = _checks.parameter(name, like, temperature=temperature)
    bias = _checks.parameter(name, like, bias=bias)
    x, y = _pairs.directions(name, normalize, x, y)
    if like.size == 0:
        return like
    cosines = _pairs.cosines(x, y)
    return _pairs.sigmoid(cosines, *_pairs.pairs(valid), tau, bias)
