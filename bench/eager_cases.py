"""The calls of `python -m bench eager`: every loss, and optax's where it has one.

Each is written as a user writes it, with arguments of a usual small size.  Gradients
are of the mean, by the first argument.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxloss
from bench.arguments import Arg, draw
from jaxloss import catalogue

Function = Callable[..., jax.Array]
MEANS: dict[str, Function] = {"jaxloss": jaxloss.mean, "optax": jnp.mean}


@dataclass(frozen=True)
class EagerCase:
    """One loss of ours, and what an optax user calls instead."""

    loss: str
    """The name in `jaxloss`."""
    args: tuple[Arg, ...]
    peer: str = ""
    """The name in `optax.losses`; empty if it has no such loss."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of ours."""
    peer_options: Mapping[str, Any] = field(default_factory=dict)
    ours: Function | None = None
    """The call, where it is more than the function with its options."""
    theirs: Function | None = None
    variant: str = ""
    """Which one it is, of several cases of one loss."""
    scalar: tuple[str, ...] = ()
    """The sides that return one number, and need no mean."""
    differs: str = ""
    """Why the values are not the same."""

    @property
    def name(self) -> str:
        return f"{self.loss}, {self.variant}" if self.variant else self.loss

    @property
    def sides(self) -> dict[str, Function]:
        """The losses without their mean, by package."""
        ours = self.ours or _call(getattr(jaxloss, self.loss), self.options)
        if not self.peer:
            return {"jaxloss": ours}
        theirs = self.theirs or _call(
            getattr(optax.losses, self.peer), self.peer_options
        )
        return {"jaxloss": ours, "optax": theirs}

    def mean(self, side: str) -> Function:
        """The function that is differentiated."""
        fn, mean = self.sides[side], MEANS[side]
        return fn if side in self.scalar else lambda *args: mean(fn(*args))

    def arrays(self) -> list[jax.Array]:
        """On the device; nothing is compiled for it."""
        drawn = zip(self.args, draw(self.args), strict=True)
        return [jax.device_put(x.astype(arg.dtype)) for arg, x in drawn]


def _call(fn: Function, options: Mapping[str, Any]) -> Function:
    return lambda *args: fn(*args, **options)


def missing() -> list[str]:
    """The losses of the catalogue that have no case."""
    names = {case.loss for case in CASES}
    return [e.name for e in catalogue.entries() if e.name not in names]


# --- arguments -----------------------------------------------------------------------

EACH = (256,)
ROWS = (256, 10)
WIDE = (32, 64)
IMAGES = (8, 16, 16, 4)

REALS = Arg("normal", EACH)
PAIR = (REALS, REALS)
BITS = (REALS, Arg("bits", EACH))
SIGNS = (REALS, Arg("signs", EACH))
IDS = Arg("ids", EACH, "int32", below=ROWS[-1])
BY_ID = (Arg("normal", ROWS), IDS)
BY_DISTRIBUTION = (Arg("normal", ROWS), Arg("distributions", ROWS))
LOG_ROWS = Arg("log_distributions", ROWS)
DIVERGENCE = (LOG_ROWS, Arg("distributions", ROWS))
VECTORS = Arg("normal", WIDE)
LISTS = (VECTORS, Arg("counts", WIDE))
VECTORS_OF_MEMBERS = (WIDE[0], 10, WIDE[1])
BOXES = Arg("boxes", (64, 4))
STUDY = (512,)
SUBJECTS = (Arg("normal", STUDY), Arg("positive", STUDY), Arg("bits", STUDY, "bool"))
VIEWS = (VECTORS, Arg("views", WIDE[:1], "int32"))
DISTANCES = Arg("positive", EACH)
COUNTS = Arg("counts", EACH)
ANSWERS = Arg("negative", EACH)
SEGMENTS = (Arg("normal", IMAGES), Arg("one_hot", IMAGES))
PARAMETERS = (Arg("normal", (64, 10)), Arg("normal", (10,)))
FRAMES = (
    Arg("normal", (8, 32, 16)),
    Arg("labels", (8, 6), "int32", below=16),
    # optax wants to be told that nothing is padded.
    Arg("zeros", (8, 32)),
    Arg("zeros", (8, 6)),
)
CUTPOINTS = np.array([-1.5, -0.5, 0.5, 1.5], np.float32)
SMOOTHING = 0.1
TEMPERATURE = {"temperature": 0.07}
AXES = tuple(range(1, len(IMAGES) - 1))


def _smoothed(logits: jax.Array, ids: jax.Array) -> jax.Array:
    one_hot = jax.nn.one_hot(ids, logits.shape[-1])
    labels = optax.losses.smooth_labels(one_hot, SMOOTHING)
    return optax.losses.softmax_cross_entropy(logits, labels)


def _overlap(loss: Function, activation: Function, smooth: float) -> Function:
    """A loss of masks, of the probabilities of each class of each image."""
    return lambda x, y: loss(activation(x), y, axis=AXES, smooth=smooth)


def _cut(loss: Function) -> Function:
    """A loss of scores and classes between four cutpoints."""
    return lambda x, ids: loss(x, ids, CUTPOINTS)


def _penalty(loss: Function) -> Function:
    return lambda kernel, bias: loss({"kernel": kernel, "bias": bias})


# Any: optax asks for a function that takes more arguments than this one has.
LOG_SUM_EXP: Any = jax.scipy.special.logsumexp
FENCHEL_YOUNG = optax.losses.make_fenchel_young_loss(LOG_SUM_EXP)

# --- beside optax --------------------------------------------------------------------

REGRESSION = [
    EagerCase("squared_error", PAIR, "squared_error"),
    EagerCase(
        "squared_error",
        PAIR,
        "l2_loss",
        variant="half",
        ours=lambda x, y: 0.5 * jaxloss.squared_error(x, y),
    ),
    EagerCase("huber", PAIR, "huber_loss"),
    EagerCase("log_cosh", PAIR, "log_cosh"),
    EagerCase("cosine_similarity", (VECTORS, VECTORS), "cosine_similarity"),
    EagerCase("cosine_distance", (VECTORS, VECTORS), "cosine_distance"),
]
TWO_CLASSES = [
    EagerCase("sigmoid_cross_entropy", BITS, "sigmoid_binary_cross_entropy"),
    EagerCase("sigmoid_focal", BITS, "sigmoid_focal_loss"),
    EagerCase("hinge", SIGNS, "hinge_loss"),
    EagerCase("perceptron", SIGNS, "perceptron_loss"),
    EagerCase(
        "modified_huber",
        BITS,
        "sparsemax_loss",
        # A quarter of it, for labels 0 and 1: what the adapter is.
        ours=jaxloss.compat.optax.sparsemax_loss,
    ),
]
CLASSES = [
    EagerCase(
        "softmax_cross_entropy",
        BY_ID,
        "softmax_cross_entropy_with_integer_labels",
        variant="ids",
    ),
    EagerCase(
        "softmax_cross_entropy",
        BY_DISTRIBUTION,
        "softmax_cross_entropy",
        variant="distributions",
    ),
    EagerCase(
        "softmax_cross_entropy",
        BY_DISTRIBUTION,
        "safe_softmax_cross_entropy",
        variant="beside the safe one",
    ),
    EagerCase(
        "softmax_cross_entropy",
        BY_ID,
        "smooth_labels",
        variant="smoothed ids",
        options={"label_smoothing": SMOOTHING},
        theirs=_smoothed,
    ),
    EagerCase(
        "poly1",
        BY_DISTRIBUTION,
        "poly_loss_cross_entropy",
        options={"epsilon": 2.0},
    ),
    EagerCase("crammer_singer_hinge", BY_ID, "multiclass_hinge_loss"),
    EagerCase(
        "crammer_singer_hinge",
        BY_ID,
        "multiclass_perceptron_loss",
        variant="margin 0",
        options={"margin": 0.0},
    ),
    EagerCase("sparsemax", BY_ID, "multiclass_sparsemax_loss"),
    EagerCase(
        "fenchel_young",
        BY_DISTRIBUTION,
        "make_fenchel_young_loss",
        options={"max_fun": LOG_SUM_EXP},
        theirs=FENCHEL_YOUNG,
    ),
]
DIVERGENCES = [
    EagerCase("kl_divergence", DIVERGENCE, "kl_divergence"),
    EagerCase(
        "kl_divergence_with_log_targets",
        (LOG_ROWS, LOG_ROWS),
        "kl_divergence_with_log_targets",
    ),
    EagerCase("generalized_kl_divergence", DIVERGENCE, "generalized_kl_divergence"),
]
BATCHES = [
    EagerCase(
        "listwise_softmax",
        (Arg("normal", ROWS), Arg("bits", ROWS)),
        "ranking_softmax_loss",
        scalar=("optax",),
    ),
    EagerCase("nt_xent", VIEWS, "ntxent", options=TEMPERATURE, scalar=("optax",)),
    EagerCase("triplet_margin", (VECTORS, VECTORS, VECTORS), "triplet_margin_loss"),
    EagerCase(
        "ctc",
        FRAMES,
        "ctc_loss",
        ours=lambda x, ids, *padding: jaxloss.ctc(x, ids),
        theirs=lambda x, ids, frames, labels: optax.losses.ctc_loss(
            x, frames, ids, labels
        ),
    ),
]
MASKS = [
    # Dice's smoothing counts twice: optax has 2 (TP + s) above, we have 2 TP + s.
    EagerCase(
        "dice",
        SEGMENTS,
        "dice_loss",
        ours=_overlap(jaxloss.dice, jax.nn.softmax, smooth=2.0),
    ),
    EagerCase(
        "dice",
        (Arg("normal", (*IMAGES[:-1], 1)), Arg("bits", (*IMAGES[:-1], 1))),
        "binary_dice_loss",
        variant="two classes",
        ours=_overlap(jaxloss.dice, jax.nn.sigmoid, smooth=2.0),
    ),
    EagerCase(
        "generalized_dice",
        SEGMENTS,
        "multiclass_generalized_dice_loss",
        ours=_overlap(jaxloss.generalized_dice, jax.nn.softmax, smooth=2.0),
        scalar=("optax",),
        differs="optax takes the class weights of the whole batch",
    ),
]
PAIRED = [*REGRESSION, *TWO_CLASSES, *CLASSES, *DIVERGENCES, *BATCHES, *MASKS]

# What is public in `optax.losses` and has no case.
WITHOUT_CASE = {
    "convex_kl_divergence": "the old name of generalized_kl_divergence",
    "ctc_loss_with_forward_probs": "ctc_loss is this without the probabilities",
}

# --- without a counterpart -----------------------------------------------------------

ALONE = [
    *(
        EagerCase(name, PAIR)
        for name in (
            "absolute_error",
            "epsilon_insensitive",
            "expectile",
            "general_robust",
            "margin_ranking",
            "pinball",
            "quantile_huber",
            "smooth_l1",
        )
    ),
    EagerCase("absolute_percentage_error", (REALS, DISTANCES)),
    EagerCase("squared_log_error", (DISTANCES, DISTANCES)),
    EagerCase("gaussian_nll", (REALS, REALS, REALS)),
    EagerCase("laplace_nll", (REALS, REALS, REALS)),
    EagerCase("student_t_nll", (REALS, REALS, REALS), options={"degrees": 4.0}),
    EagerCase("mixture_nll", (Arg("normal", ROWS), Arg("positive", ROWS))),
    EagerCase("poisson_nll", (REALS, COUNTS)),
    EagerCase("negative_binomial_nll", (REALS, COUNTS, REALS)),
    EagerCase("tweedie_deviance", (REALS, COUNTS), options={"power": 1.5}),
    EagerCase("gamma_nll", (REALS, DISTANCES), options={"shape": 2.0}),
    EagerCase("crps_normal", (REALS, REALS, REALS)),
    EagerCase("crps_ensemble", (Arg("normal", ROWS), REALS)),
    EagerCase("crps_ensemble_fair", (Arg("normal", ROWS), REALS)),
    EagerCase("energy_score", (Arg("normal", VECTORS_OF_MEMBERS), VECTORS)),
    *(EagerCase(name, SIGNS) for name in ("exponential", "logistic", "squared_hinge")),
    EagerCase("asymmetric", BITS),
    EagerCase("zlpr", (Arg("normal", ROWS), Arg("bits", ROWS))),
    EagerCase("brier", (Arg("distributions", ROWS), IDS)),
    EagerCase("nll", (LOG_ROWS, IDS)),
    *(
        EagerCase(name, BY_ID)
        for name in (
            "coral",
            "corn",
            "generalized_cross_entropy",
            "softmax_focal",
            "squared_emd",
            "weston_watkins_hinge",
        )
    ),
    *(
        EagerCase(name, (REALS, Arg("ids", EACH, "int32", below=5)), ours=_cut(loss))
        for name, loss in (
            ("cumulative_logit", jaxloss.cumulative_logit),
            ("cumulative_probit", jaxloss.cumulative_probit),
        )
    ),
    EagerCase(
        "knowledge_distillation",
        (Arg("normal", ROWS), Arg("normal", ROWS)),
        options={"temperature": 2.0},
    ),
    EagerCase("entmax15", BY_DISTRIBUTION),
    EagerCase("gaussian_kl", (Arg("normal", ROWS), Arg("normal", ROWS))),
    EagerCase("jensen_shannon", DIVERGENCE),
    *(
        EagerCase(name, SEGMENTS, ours=_overlap(loss, jax.nn.softmax, smooth=1.0))
        for name, loss in (("jaccard", jaxloss.jaccard), ("tversky", jaxloss.tversky))
    ),
    EagerCase("lovasz_hinge", SEGMENTS, options={"axis": AXES}),
    EagerCase(
        "lovasz_softmax",
        SEGMENTS,
        ours=lambda x, y: jaxloss.lovasz_softmax(jax.nn.softmax(x), y, axis=AXES),
    ),
    *(
        EagerCase(name, (VECTORS, VECTORS), options=TEMPERATURE)
        for name in ("clip", "info_nce")
    ),
    EagerCase("siglip", (VECTORS, VECTORS), options={**TEMPERATURE, "bias": -10.0}),
    EagerCase("supervised_contrastive", VIEWS, options=TEMPERATURE),
    EagerCase("batch_hard_triplet", VIEWS),
    *(EagerCase(name, VIEWS) for name in ("multi_similarity", "circle")),
    EagerCase("semi_hard_triplet", VIEWS),
    EagerCase("barlow_twins", (VECTORS, VECTORS)),
    *(EagerCase(name, (VECTORS,)) for name in ("variance_hinge", "covariance_penalty")),
    EagerCase("koleo", (VECTORS,)),
    EagerCase("uniformity", (VECTORS,), scalar=("jaxloss",)),
    EagerCase("contrastive", (DISTANCES, Arg("bits", EACH))),
    *(EagerCase(name, (BOXES, BOXES)) for name in ("iou", "giou", "diou", "ciou")),
    *(EagerCase(name, SUBJECTS) for name in ("cox_ph", "cox_ph_breslow")),
    *(EagerCase(name, LISTS) for name in ("list_mle", "pairwise_ranking")),
    EagerCase("approx_ndcg", LISTS, options={"temperature": 1.0}),
    *(
        EagerCase(
            name,
            (
                Arg("normal", ROWS),
                Arg("ids", EACH, "int32", below=ROWS[-1] - 1),
                Arg("bits", EACH, "bool"),
            ),
        )
        for name in ("discrete_hazard", "discrete_time_nll")
    ),
    EagerCase("cosine_embedding", (VECTORS, VECTORS, Arg("signs", WIDE[:1]))),
    EagerCase("triplet", (DISTANCES, DISTANCES)),
    *(EagerCase(name, (ANSWERS,) * 4) for name in ("dpo", "ipo")),
    EagerCase("grpo", (*(Arg("negative", WIDE),) * 2, Arg("normal", WIDE[:1]))),
    EagerCase("ppo_clip", (ANSWERS, ANSWERS, REALS)),
    EagerCase("kl_estimate", (ANSWERS, ANSWERS)),
    EagerCase(
        "kto",
        (ANSWERS, ANSWERS, Arg("bits", EACH, "bool")),
        options={"baseline": 0.1},
    ),
    EagerCase("orpo", (ANSWERS, ANSWERS)),
    EagerCase("simpo", (ANSWERS, ANSWERS), options={"beta": 2.0, "gamma": 0.5}),
    *(EagerCase(name, (Arg("normal", ROWS),)) for name in ("entropy", "z_loss")),
    *(
        EagerCase(name, PARAMETERS, ours=_penalty(loss), scalar=("jaxloss",))
        for name, loss in (
            ("elastic_net", jaxloss.elastic_net),
            ("l1", jaxloss.l1),
            ("l2", jaxloss.l2),
        )
    ),
]
CASES: list[EagerCase] = [*PAIRED, *ALONE]
