"""Numerically exact, composable loss functions for JAX.

A loss is a pure function from arrays to one number per example; `mean` and other
reductions turn these into a scalar.  `train` has objectives and training steps,
`kernels` the losses of large vocabularies and batches, `parallel` those of sharded
arrays, `landscape` the loss around given parameters.  `stable` has the primitives that
losses are built from, `testing` the checks that they pass, and `compat` the names of
optax and Keras.
"""

import typing as _typing

from jaxloss import (
    logits as logits,
    margins as margins,
    reduce as reduce,
    stable as stable,
    targets as targets,
)
from jaxloss.logits import (
    adjust_logits as adjust_logits,
    angular_margin as angular_margin,
    temperature as temperature,
)
from jaxloss.losses.classification.calibration import (
    brier as brier,
    expected_calibration_error as expected_calibration_error,
    fit_temperature as fit_temperature,
)
from jaxloss.losses.classification.cross_entropy import (
    nll as nll,
    sigmoid_cross_entropy as sigmoid_cross_entropy,
    softmax_cross_entropy as softmax_cross_entropy,
    softmax_cross_entropy_with_z as softmax_cross_entropy_with_z,
    z_loss as z_loss,
)
from jaxloss.losses.classification.distillation import (
    knowledge_distillation as knowledge_distillation,
)
from jaxloss.losses.classification.fenchel import (
    entmax15 as entmax15,
    fenchel_young as fenchel_young,
    sparsemax as sparsemax,
)
from jaxloss.losses.classification.focal import (
    poly1 as poly1,
    sigmoid_focal as sigmoid_focal,
    softmax_focal as softmax_focal,
)
from jaxloss.losses.classification.large_margin import (
    crammer_singer_hinge as crammer_singer_hinge,
    exponential as exponential,
    hinge as hinge,
    logistic as logistic,
    modified_huber as modified_huber,
    perceptron as perceptron,
    squared_hinge as squared_hinge,
    weston_watkins_hinge as weston_watkins_hinge,
)
from jaxloss.losses.classification.multilabel import (
    asymmetric as asymmetric,
    zlpr as zlpr,
)
from jaxloss.losses.classification.noise import (
    generalized_cross_entropy as generalized_cross_entropy,
)
from jaxloss.losses.classification.ordinal import (
    coral as coral,
    corn as corn,
    cumulative_logit as cumulative_logit,
    cumulative_probit as cumulative_probit,
    squared_emd as squared_emd,
)
from jaxloss.losses.distributions.counts import (
    gamma_nll as gamma_nll,
    negative_binomial_nll as negative_binomial_nll,
    poisson_nll as poisson_nll,
    tweedie_deviance as tweedie_deviance,
)
from jaxloss.losses.distributions.divergence import (
    gaussian_kl as gaussian_kl,
    generalized_kl_divergence as generalized_kl_divergence,
    jensen_shannon as jensen_shannon,
    kl_divergence as kl_divergence,
    kl_divergence_with_log_targets as kl_divergence_with_log_targets,
)
from jaxloss.losses.distributions.likelihood import (
    gaussian_nll as gaussian_nll,
    laplace_nll as laplace_nll,
    mixture_nll as mixture_nll,
    student_t_nll as student_t_nll,
)
from jaxloss.losses.distributions.scores import (
    crps_ensemble as crps_ensemble,
    crps_ensemble_fair as crps_ensemble_fair,
    crps_normal as crps_normal,
    energy_score as energy_score,
)
from jaxloss.losses.embedding.cosine import (
    cosine_distance as cosine_distance,
    cosine_similarity as cosine_similarity,
)
from jaxloss.losses.embedding.in_batch import (
    clip as clip,
    info_nce as info_nce,
    nt_xent as nt_xent,
    siglip as siglip,
    supervised_contrastive as supervised_contrastive,
)
from jaxloss.losses.embedding.metric_learning import (
    circle as circle,
    multi_similarity as multi_similarity,
    semi_hard_triplet as semi_hard_triplet,
)
from jaxloss.losses.embedding.self_supervised import (
    barlow_twins as barlow_twins,
    covariance_penalty as covariance_penalty,
    variance_hinge as variance_hinge,
)
from jaxloss.losses.embedding.spread import (
    koleo as koleo,
    uniformity as uniformity,
)
from jaxloss.losses.embedding.tuples import (
    batch_hard_triplet as batch_hard_triplet,
    contrastive as contrastive,
    cosine_embedding as cosine_embedding,
    triplet as triplet,
    triplet_margin as triplet_margin,
)
from jaxloss.losses.language.policy import (
    grpo as grpo,
    kl_estimate as kl_estimate,
    ppo_clip as ppo_clip,
)
from jaxloss.losses.language.preference import (
    dpo as dpo,
    ipo as ipo,
    kto as kto,
    orpo as orpo,
    simpo as simpo,
)
from jaxloss.losses.language.sequence import ctc as ctc, ctc_forward as ctc_forward
from jaxloss.losses.ranking.lists import (
    listwise_softmax as listwise_softmax,
    margin_ranking as margin_ranking,
)
from jaxloss.losses.ranking.ndcg import (
    approx_ndcg as approx_ndcg,
    ndcg_weights as ndcg_weights,
)
from jaxloss.losses.ranking.pairs import pairwise_ranking as pairwise_ranking
from jaxloss.losses.ranking.plackett_luce import list_mle as list_mle
from jaxloss.losses.regression.pointwise import (
    absolute_error as absolute_error,
    absolute_percentage_error as absolute_percentage_error,
    expectile as expectile,
    pinball as pinball,
    quantile_huber as quantile_huber,
    squared_error as squared_error,
    squared_log_error as squared_log_error,
)
from jaxloss.losses.regression.robust import (
    epsilon_insensitive as epsilon_insensitive,
    general_robust as general_robust,
    huber as huber,
    log_cosh as log_cosh,
    smooth_l1 as smooth_l1,
)
from jaxloss.losses.regularization import (
    elastic_net as elastic_net,
    entropy as entropy,
    l1 as l1,
    l2 as l2,
)
from jaxloss.losses.survival.hazards import (
    cox_ph as cox_ph,
    cox_ph_breslow as cox_ph_breslow,
    discrete_hazard as discrete_hazard,
    discrete_time_nll as discrete_time_nll,
)
from jaxloss.losses.vision.boxes import (
    ciou as ciou,
    diou as diou,
    giou as giou,
    iou as iou,
)
from jaxloss.losses.vision.lovasz import (
    lovasz_hinge as lovasz_hinge,
    lovasz_softmax as lovasz_softmax,
)
from jaxloss.losses.vision.segmentation import (
    dice as dice,
    generalized_dice as generalized_dice,
    jaccard as jaccard,
    tversky as tversky,
)
from jaxloss.reduce import (
    Mean as Mean,
    class_weights as class_weights,
    fill as fill,
    mean as mean,
    mean_nonzero as mean_nonzero,
    sum as sum,
    top_k_mean as top_k_mean,
)
from jaxloss.targets import (
    hl_gauss as hl_gauss,
    mixup as mixup,
    ordinal_levels as ordinal_levels,
    pair_masks as pair_masks,
    sinkhorn_assign as sinkhorn_assign,
    smooth_binary_labels as smooth_binary_labels,
    smooth_labels as smooth_labels,
    two_hot as two_hot,
)

# The version of the package: `pyproject.toml` reads it here.
__version__ = "0.1.0"

if _typing.TYPE_CHECKING:
    from jaxloss import (
        catalogue as catalogue,
        compat as compat,
        datasets as datasets,
        kernels as kernels,
        landscape as landscape,
        parallel as parallel,
        plot as plot,
        testing as testing,
        train as train,
    )

_ON_FIRST_USE = (
    *("catalogue", "compat", "datasets", "kernels", "landscape", "parallel"),
    *("plot", "testing", "train"),
)


def __getattr__(name: str) -> _typing.Any:
    """Imports a module of the package at its first use, so that `import` is quick.

    So optax is imported with `jaxloss.train`, and matplotlib where something is drawn.
    """
    import importlib

    if name in _ON_FIRST_USE:
        return importlib.import_module(f"jaxloss.{name}")
    names = importlib.import_module("jaxloss.catalogue")
    hint = "" if name.startswith("_") else names.hint(name)
    # With an object, Python would add a guess of its own: `mean` for `mse`.
    raise AttributeError(
        f"module 'jaxloss' has no attribute {name!r}{hint}", name=name, obj=None
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_FIRST_USE})
