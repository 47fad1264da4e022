"""What torch, Keras and optax call a loss, and the same here: data of `switching`.

Every row is a pair of expressions over the arrays of `DATA`, and both are evaluated in
float64: rows agree to rounding, but for those that say why not.  Keras on JAX takes its
means in float32.
"""

from typing import NamedTuple

import numpy as np

ROUNDING = {"torch": 1e-12, "keras": 1e-6, "optax": 1e-12}


class Row(NamedTuple):
    """Their expression, ours, and how far apart they may be."""

    theirs: str
    ours: str
    why: str = ""
    """Why the numbers differ by more than rounding."""
    within: float = 0.0
    """By how much, relative to the largest entry of value and gradient."""


class Edge(NamedTuple):
    """Expressions whose values are shown beside each other, since they differ."""

    theirs: str
    ours: str


def _data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal
    normalised = lambda x: x / x.sum(axis=-1, keepdims=True)
    positive = lambda *shape: np.exp(0.5 * normal(shape))
    bits = np.array([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 1], [1] + 4 * [0]])
    embeddings = normal((6, 4))
    return {
        "predictions": normal((4, 3)),
        "targets": normal((4, 3)),
        "rates": positive(4, 3),
        "log_rates": normal((4, 3)),
        "counts": rng.poisson(2.0, (4, 3)).astype(float),
        "variances": positive(4, 3),
        "logits": 2 * normal((4, 5)),
        "ids": np.array([2, 0, 4, 2]),
        "padded_ids": np.array([2, -100, 4, -100]),
        "labels": normalised(positive(4, 5)),
        "shares": normalised(positive(4, 5)),
        "probabilities": 1 / (1 + np.exp(-normal((4, 5)))),
        "bits": bits.astype(float),
        "signs": 2.0 * bits - 1,
        # Which bits are 1, and then -1.
        "listed": np.array(
            [[0, 3, -1, 0, 0], [1] + 4 * [-1], [1, 2, 4, -1, 0], [0] * 5]
        )
        - np.array([[0] * 5, [0] * 5, [0] * 5, [0, 1, 1, 1, 1]]),
        "class_weights": positive(5),
        "each_weight": positive(4, 5),
        "weights": positive(4),
        "row_weights": positive(4, 3),
        "mask": np.array([True, False, True, True]),
        "first": normal((4, 6)),
        "second": normal((4, 6)),
        "third": normal((4, 6)),
        "pair_signs": np.array([1.0, -1.0, 1.0, -1.0]),
        "distances": positive(4),
        "one": normal(4),
        "other": normal(4),
        "frames": normal((2, 7, 5)),
        "sequences": np.array([[1, 2, 2], [4, 1, 0]]),
        "frame_lengths": np.array([7, 6]),
        "sequence_lengths": np.array([3, 2]),
        "hidden": normal((4, 6)),
        "kernel": normal((5, 6)),
        "image_logits": normal((2, 5, 3, 3)),
        "image_ids": rng.integers(0, 5, (2, 3, 3)),
        "embeddings": embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
        "groups": np.array([0, 0, 1, 1, 2, 2]),
        "losses": np.array([0.0, 3.0, 0.0, 1.0, 0.5]),
        "relevance": np.array([[1.0, 0, 0, 2, 0], [0, 1, 0, 0, 0]] * 2),
    }


DATA = _data()
# What gradients are taken of: the first of these that an expression names.
PREDICTED = [
    "predictions",
    "logits",
    "probabilities",
    "shares",
    "log_rates",
    "rates",
    "frames",
    "hidden",
    "first",
    "embeddings",
    "image_logits",
    "distances",
    "one",
    "losses",
]

EPS_RATE = "eps=1e-8 inside of the logarithm"
EPS_NORM = "eps=1e-6 in each difference"
CLIP = "probabilities clipped by 1e-7"
DENOMINATOR = "1e-7 in the denominator"

TORCH: dict[str, list[Row]] = {
    "numbers": [
        Row(
            'F.mse_loss(predictions, targets, reduction="none")',
            "jaxloss.squared_error(predictions, targets)",
        ),
        Row(
            'F.l1_loss(predictions, targets, reduction="none")',
            "jaxloss.absolute_error(predictions, targets)",
        ),
        Row(
            'F.huber_loss(predictions, targets, delta=0.5, reduction="none")',
            "jaxloss.huber(predictions, targets, delta=0.5)",
        ),
        Row(
            'F.smooth_l1_loss(predictions, targets, beta=0.5, reduction="none")',
            "jaxloss.smooth_l1(predictions, targets, beta=0.5)",
        ),
        Row(
            'F.smooth_l1_loss(predictions, targets, beta=0.0, reduction="none")',
            "jaxloss.smooth_l1(predictions, targets, beta=0.0)",
        ),
        Row(
            'F.poisson_nll_loss(log_rates, counts, reduction="none")',
            "jaxloss.poisson_nll(log_rates, counts)",
        ),
        Row(
            'F.poisson_nll_loss(rates, counts, log_input=False, reduction="none")',
            "rates - stable.xlogy(counts, rates)",
            EPS_RATE,
            1e-7,
        ),
        Row(
            'F.poisson_nll_loss(log_rates, counts, full=True, reduction="none")',
            "jaxloss.poisson_nll(log_rates, counts) + gammaln(counts + 1)",
            "Stirling's formula, for counts > 1",
            0.02,
        ),
        Row(
            'F.gaussian_nll_loss(predictions, targets, variances, reduction="none")',
            "jaxloss.gaussian_nll(predictions, targets, jnp.log(variances)) "
            "- 0.5 * math.log(2 * math.pi)",
        ),
        Row(
            "F.gaussian_nll_loss(predictions, targets, variances, full=True, "
            'reduction="none")',
            "jaxloss.gaussian_nll(predictions, targets, jnp.log(variances))",
        ),
    ],
    "classes": [
        Row(
            'F.cross_entropy(logits, ids, reduction="none")',
            "jaxloss.softmax_cross_entropy(logits, ids)",
        ),
        Row(
            'F.cross_entropy(logits, labels, reduction="none")',
            "jaxloss.softmax_cross_entropy(logits, labels)",
        ),
        Row(
            'F.cross_entropy(image_logits, image_ids, reduction="none")',
            "jaxloss.softmax_cross_entropy(image_logits, image_ids, axis=1)",
        ),
        Row(
            'F.cross_entropy(logits, ids, label_smoothing=0.1, reduction="none")',
            "jaxloss.softmax_cross_entropy(logits, ids, label_smoothing=0.1)",
        ),
        Row(
            'F.cross_entropy(logits, ids, weight=class_weights, reduction="none")',
            "class_weights[ids] * jaxloss.softmax_cross_entropy(logits, ids)",
        ),
        Row(
            'F.cross_entropy(logits, labels, weight=class_weights, reduction="none")',
            "jaxloss.softmax_cross_entropy(logits, class_weights[None] * labels)",
        ),
        Row(
            "F.cross_entropy(logits, ids, weight=class_weights, label_smoothing=0.1, "
            'reduction="none")',
            "jaxloss.softmax_cross_entropy(logits, class_weights[None] * "
            "jaxloss.smooth_labels(jax.nn.one_hot(ids, 5), smoothing=0.1))",
        ),
        Row(
            'F.cross_entropy(logits, padded_ids, ignore_index=-100, reduction="none")',
            "jnp.where(padded_ids != -100, "
            "jaxloss.softmax_cross_entropy(logits, padded_ids), 0)",
        ),
        Row(
            'F.linear_cross_entropy(hidden, kernel, ids, reduction="mean")',
            "kernels.linear_softmax_cross_entropy(hidden, kernel, ids, "
            'kernel_layout="vd").compute()',
        ),
        Row(
            'F.nll_loss(F.log_softmax(logits, -1), ids, reduction="none")',
            "jaxloss.nll(stable.log_softmax(logits), ids)",
        ),
        Row(
            'F.multi_margin_loss(logits, ids, margin=0.5, reduction="none")',
            "jaxloss.weston_watkins_hinge(logits, ids, margin=0.5) / 5",
        ),
        Row(
            'F.multi_margin_loss(logits, ids, weight=class_weights, reduction="none")',
            "class_weights[ids] * jaxloss.weston_watkins_hinge(logits, ids) / 5",
        ),
        Row(
            'F.multi_margin_loss(logits, ids, p=2, reduction="none")',
            "(jnp.sum(margins.squared_hinge(jnp.take_along_axis(logits, "
            "ids[:, None], 1) - logits), axis=-1) - 1) / 5",
        ),
    ],
    "yes or no, and several labels": [
        Row(
            'F.binary_cross_entropy_with_logits(logits, bits, reduction="none")',
            "jaxloss.sigmoid_cross_entropy(logits, bits)",
        ),
        Row(
            "F.binary_cross_entropy_with_logits(logits, bits, "
            'pos_weight=class_weights, reduction="none")',
            "jaxloss.sigmoid_cross_entropy(logits, bits, pos_weight=class_weights)",
        ),
        Row(
            "F.binary_cross_entropy_with_logits(logits, bits, weight=each_weight, "
            'reduction="none")',
            "each_weight * jaxloss.sigmoid_cross_entropy(logits, bits)",
        ),
        Row(
            'F.binary_cross_entropy(probabilities, bits, reduction="none")',
            "-stable.xlogy(bits, probabilities) "
            "- stable.xlog1py(1 - bits, -probabilities)",
        ),
        Row(
            'F.multilabel_soft_margin_loss(logits, bits, reduction="none")',
            "jaxloss.mean(jaxloss.sigmoid_cross_entropy(logits, bits), axis=-1)",
        ),
        Row(
            "F.multilabel_soft_margin_loss(logits, bits, weight=class_weights, "
            'reduction="none")',
            "jnp.mean(class_weights[None] * "
            "jaxloss.sigmoid_cross_entropy(logits, bits), axis=-1)",
        ),
        Row(
            'F.multilabel_margin_loss(logits, listed, reduction="none")',
            "jnp.sum(bits[:, :, None] * (1 - bits[:, None]) * margins.hinge("
            "logits[:, :, None] - logits[:, None]), axis=(1, 2)) / 5",
        ),
        Row(
            'F.soft_margin_loss(logits, signs, reduction="none")',
            "jaxloss.logistic(logits, signs)",
        ),
    ],
    "distributions": [
        Row(
            'F.kl_div(logits.log_softmax(-1), labels, reduction="none").sum(-1)',
            "jaxloss.kl_divergence(stable.log_softmax(logits), labels)",
        ),
        Row(
            "F.kl_div(logits.log_softmax(-1), labels.log(), log_target=True, "
            'reduction="none").sum(-1)',
            "jaxloss.kl_divergence_with_log_targets(stable.log_softmax(logits), "
            "stable.log_probabilities(labels))",
        ),
    ],
    "embeddings and ranks": [
        Row(
            "F.cosine_similarity(first, second, dim=-1)",
            "jaxloss.cosine_similarity(first, second)",
        ),
        Row(
            "F.cosine_embedding_loss(first, second, pair_signs, margin=0.2, "
            'reduction="none")',
            "jaxloss.cosine_embedding(first, second, pair_signs, margin=0.2)",
        ),
        Row(
            "F.pairwise_distance(first, second)",
            "stable.norm(first - second)",
            EPS_NORM,
            1e-5,
        ),
        Row(
            'F.triplet_margin_loss(first, second, third, reduction="none")',
            "jaxloss.triplet_margin(first, second, third)",
            EPS_NORM,
            1e-5,
        ),
        Row(
            "F.triplet_margin_loss(first, second, third, p=1, swap=True, "
            'reduction="none")',
            "jaxloss.triplet(stable.norm(first - second, ord=1), jnp.minimum("
            "stable.norm(first - third, ord=1), stable.norm(second - third, ord=1)))",
            EPS_NORM,
            1e-5,
        ),
        Row(
            "F.triplet_margin_with_distance_loss(first, second, third, "
            "distance_function=lambda a, b: 1 - F.cosine_similarity(a, b), "
            'reduction="none")',
            "jaxloss.triplet(jaxloss.cosine_distance(first, second), "
            "jaxloss.cosine_distance(first, third))",
        ),
        Row(
            'F.hinge_embedding_loss(distances, pair_signs, reduction="none")',
            "jnp.where(pair_signs == 1, distances, margins.hinge(distances))",
        ),
        Row(
            "F.margin_ranking_loss(one, other, pair_signs, margin=0.5, "
            'reduction="none")',
            "jaxloss.margin_ranking(pair_signs * one, pair_signs * other, margin=0.5)",
        ),
    ],
    "sequences": [
        Row(
            "F.ctc_loss(frames.transpose(0, 1).log_softmax(-1), sequences, "
            'frame_lengths, sequence_lengths, reduction="none")',
            "jaxloss.ctc(frames, sequences, "
            "where=jnp.arange(7)[None] < frame_lengths[:, None], "
            "label_where=jnp.arange(3)[None] < sequence_lengths[:, None])",
        ),
    ],
}

KERAS: dict[str, list[Row]] = {
    "numbers": [
        Row(
            "mean_squared_error(targets, predictions)",
            "jaxloss.mean(jaxloss.squared_error(predictions, targets), axis=-1)",
        ),
        Row(
            "mean_absolute_error(targets, predictions)",
            "jaxloss.mean(jaxloss.absolute_error(predictions, targets), axis=-1)",
        ),
        Row(
            "mean_absolute_percentage_error(targets, predictions)",
            "100 * jaxloss.mean("
            "jaxloss.absolute_percentage_error(predictions, targets), axis=-1)",
        ),
        Row(
            "mean_squared_logarithmic_error(counts, rates)",
            "jaxloss.mean(jaxloss.squared_log_error(rates, counts), axis=-1)",
            "amounts below 1e-7 replaced by it",
            1e-6,
        ),
        Row(
            "huber(targets, predictions, delta=0.5)",
            "jaxloss.mean(jaxloss.huber(predictions, targets, delta=0.5), axis=-1)",
        ),
        Row(
            "log_cosh(targets, predictions)",
            "jaxloss.mean(jaxloss.log_cosh(predictions, targets), axis=-1)",
        ),
        Row(
            "poisson(counts, rates)",
            "jaxloss.mean(rates - stable.xlogy(counts, rates), axis=-1)",
            "1e-7 inside of the logarithm",
            1e-6,
        ),
        Row(
            "cosine_similarity(second, first)",
            "-jaxloss.cosine_similarity(first, second)",
        ),
    ],
    "classes": [
        Row(
            "sparse_categorical_crossentropy(ids, logits, from_logits=True)",
            "jaxloss.softmax_cross_entropy(logits, ids)",
        ),
        Row(
            "sparse_categorical_crossentropy(ids, shares)",
            "jaxloss.nll(stable.log_probabilities(shares / "
            "shares.sum(axis=-1, keepdims=True)), ids)",
        ),
        Row(
            "sparse_categorical_crossentropy(ids, logits, from_logits=True, "
            "ignore_class=2)",
            "jnp.where(ids != 2, jaxloss.softmax_cross_entropy(logits, ids), 0)",
        ),
        Row(
            "categorical_crossentropy(labels, logits, from_logits=True)",
            "jaxloss.softmax_cross_entropy(logits, labels)",
        ),
        Row(
            "categorical_crossentropy(labels, logits, from_logits=True, "
            "label_smoothing=0.1)",
            "jaxloss.softmax_cross_entropy(logits, labels, label_smoothing=0.1)",
        ),
        Row(
            "categorical_crossentropy(labels, shares)",
            "jaxloss.nll(stable.log_probabilities(shares / "
            "shares.sum(axis=-1, keepdims=True)), labels)",
        ),
        Row(
            "categorical_focal_crossentropy(labels, logits, from_logits=True)",
            "jaxloss.softmax_focal(logits, labels, alpha=0.25)",
        ),
        Row(
            "categorical_generalized_cross_entropy(ids, jax.nn.softmax(logits), 0.7)",
            "jaxloss.generalized_cross_entropy(logits, ids, q=0.7)",
        ),
        Row(
            "categorical_hinge(jax.nn.one_hot(ids, 5), logits)",
            "jaxloss.crammer_singer_hinge(jnp.where(jax.nn.one_hot(ids, 5) == 1, "
            "logits, jnp.maximum(logits, 0)), ids)",
        ),
    ],
    "yes or no, and several labels": [
        Row(
            "binary_crossentropy(bits, logits, from_logits=True)",
            "jaxloss.mean(jaxloss.sigmoid_cross_entropy(logits, bits), axis=-1)",
        ),
        Row(
            "binary_crossentropy(bits, logits, from_logits=True, label_smoothing=0.1)",
            "jaxloss.mean(jaxloss.sigmoid_cross_entropy(logits, "
            "jaxloss.smooth_binary_labels(bits, smoothing=0.1)), axis=-1)",
        ),
        Row(
            "binary_crossentropy(bits, probabilities)",
            "jaxloss.mean("
            "-stable.xlogy(bits, probabilities) "
            "- stable.xlog1py(1 - bits, -probabilities), axis=-1)",
        ),
        Row(
            "binary_focal_crossentropy(bits, logits, from_logits=True)",
            "jaxloss.mean(jaxloss.sigmoid_focal(logits, bits), axis=-1)",
        ),
        Row(
            "binary_focal_crossentropy(bits, logits, apply_class_balancing=True, "
            "from_logits=True)",
            "jaxloss.mean(jaxloss.sigmoid_focal(logits, bits, alpha=0.25), axis=-1)",
        ),
        Row(
            "hinge(signs, logits)",
            "jaxloss.mean(jaxloss.hinge(logits, signs), axis=-1)",
        ),
        Row(
            "hinge(bits, logits)",
            "jaxloss.mean(jaxloss.hinge(logits, 2 * bits - 1), axis=-1)",
        ),
        Row(
            "squared_hinge(signs, logits)",
            "jaxloss.mean(jaxloss.squared_hinge(logits, signs), axis=-1)",
        ),
    ],
    "distributions, masks, embeddings, sequences": [
        Row(
            "kl_divergence(labels, shares)",
            "jaxloss.kl_divergence(stable.log_probabilities(shares), labels)",
        ),
        Row(
            "dice(bits, probabilities)",
            "jaxloss.dice(probabilities, bits, axis=(0, 1))",
            DENOMINATOR,
            1e-6,
        ),
        Row(
            "dice(bits, probabilities, axis=-1)",
            "jaxloss.dice(probabilities, bits, axis=-1)",
            DENOMINATOR,
            1e-6,
        ),
        Row(
            "tversky(bits, probabilities, alpha=0.3, beta=0.7)",
            "jaxloss.tversky(probabilities, bits, axis=(0, 1), alpha=0.7, beta=0.3)",
            DENOMINATOR,
            1e-6,
        ),
        Row(
            "circle(groups, embeddings, gamma=8.0)",
            "(lambda d, near, far: stable.softplus("
            "stable.logsumexp(8 * (d**2 - 0.4**2), where=near) + "
            "stable.logsumexp(8 * jnp.maximum(1.4 - d, 0) * (0.6 - d), where=far)))"
            "(1 - embeddings @ embeddings.T, *jaxloss.pair_masks(groups))",
        ),
        Row(
            "ctc(sequences, frames)",
            "jaxloss.ctc(frames, sequences, label_where=sequences != 0)",
        ),
    ],
}

REDUCTIONS: dict[str, list[Row]] = {
    "torch": [
        Row("F.cross_entropy(logits, ids)", "jaxloss.mean(each)"),
        Row('F.cross_entropy(logits, ids, reduction="sum")', "jaxloss.sum(each)"),
        Row(
            "F.cross_entropy(logits, ids, weight=class_weights)",
            "jaxloss.mean(each, weights=class_weights[ids])",
        ),
        Row(
            "F.cross_entropy(logits, padded_ids)",
            "jaxloss.mean(jaxloss.softmax_cross_entropy(logits, padded_ids), "
            "where=padded_ids != -100)",
        ),
        Row(
            "F.cross_entropy(logits, padded_ids, weight=class_weights)",
            "jaxloss.mean(jaxloss.softmax_cross_entropy(logits, padded_ids), "
            "where=padded_ids != -100, weights=class_weights[padded_ids])",
        ),
        Row(
            "F.cross_entropy(logits, ids, weight=class_weights, label_smoothing=0.1)",
            "jaxloss.sum(jaxloss.softmax_cross_entropy(logits, class_weights[None] * "
            "jaxloss.smooth_labels(jax.nn.one_hot(ids, 5), smoothing=0.1))) "
            "/ class_weights[ids].sum()",
        ),
        Row(
            "F.cross_entropy(logits, labels, weight=class_weights)",
            "jaxloss.mean("
            "jaxloss.softmax_cross_entropy(logits, class_weights[None] * labels))",
        ),
        Row(
            "F.nll_loss(F.log_softmax(logits, -1), ids, weight=class_weights)",
            "jaxloss.mean(each, weights=class_weights[ids])",
        ),
        Row(
            "F.binary_cross_entropy(logits.sigmoid(), bits, weight=each_weight)",
            "jaxloss.mean(jaxloss.sigmoid_cross_entropy(logits, bits), "
            'weights=each_weight, denominator="count")',
        ),
        Row(
            "F.binary_cross_entropy_with_logits(logits, bits, weight=each_weight)",
            "jaxloss.mean(jaxloss.sigmoid_cross_entropy(logits, bits), "
            'weights=each_weight, denominator="count")',
        ),
        Row(
            "F.mse_loss(predictions, targets, weight=row_weights)",
            "jaxloss.mean(jaxloss.squared_error(predictions, targets), "
            "weights=row_weights)",
        ),
        Row(
            "F.l1_loss(predictions, targets, weight=row_weights)",
            "jaxloss.mean(jaxloss.absolute_error(predictions, targets), "
            "weights=row_weights)",
        ),
        Row(
            "F.huber_loss(predictions, targets, weight=row_weights)",
            "jaxloss.mean(jaxloss.huber(predictions, targets), weights=row_weights, "
            'denominator="count")',
        ),
        Row(
            "F.multi_margin_loss(logits, ids, weight=class_weights)",
            "jaxloss.mean(jaxloss.weston_watkins_hinge(logits, ids) / 5, "
            'weights=class_weights[ids], denominator="count")',
        ),
        Row(
            'F.kl_div(logits.log_softmax(-1), labels, reduction="batchmean")',
            "jaxloss.mean(jaxloss.kl_divergence(stable.log_softmax(logits), labels))",
        ),
        Row(
            'F.kl_div(logits.log_softmax(-1), labels, reduction="mean")',
            "jaxloss.mean("
            "jaxloss.kl_divergence(stable.log_softmax(logits), labels)) / 5",
        ),
        Row(
            "F.ctc_loss(frames.transpose(0, 1).log_softmax(-1), sequences, "
            "torch.tensor([7, 7]), sequence_lengths)",
            "jaxloss.mean(jaxloss.ctc(frames, sequences, "
            "label_where=sequences != 0) / sequence_lengths)",
        ),
        Row("losses[losses > 0].mean()", "jaxloss.mean_nonzero(losses)"),
        Row("losses.topk(2).values.mean()", "jaxloss.top_k_mean(losses, 2)"),
    ],
    "keras": [
        Row(
            "MeanSquaredError()(targets, predictions)",
            "jaxloss.mean(jaxloss.squared_error(predictions, targets))",
        ),
        Row(
            'MeanSquaredError(reduction="sum")(targets, predictions)',
            "jaxloss.sum("
            "jaxloss.mean(jaxloss.squared_error(predictions, targets), axis=-1))",
        ),
        Row(
            "SparseCategoricalCrossentropy(from_logits=True)(ids, logits, "
            "sample_weight=weights)",
            'jaxloss.mean(each, weights=weights, denominator="count")',
        ),
        Row(
            "SparseCategoricalCrossentropy(from_logits=True, "
            'reduction="mean_with_sample_weight")(ids, logits, sample_weight=weights)',
            "jaxloss.mean(each, weights=weights)",
        ),
        Row(
            "SparseCategoricalCrossentropy(from_logits=True)(ids, logits, "
            "sample_weight=class_weights[ids])",
            'jaxloss.mean(each, weights=class_weights[ids], denominator="count")',
        ),
        Row(
            "SparseCategoricalCrossentropy(from_logits=True, ignore_class=2)"
            "(ids, logits)",
            "jaxloss.mean(each, where=ids != 2)",
        ),
        Row(
            "SparseCategoricalCrossentropy(from_logits=True, ignore_class=2)"
            "(ids, logits, sample_weight=weights)",
            'jaxloss.mean(each, where=ids != 2, weights=weights, denominator="valid")',
        ),
        Row(
            "BinaryCrossentropy(from_logits=True)(bits, logits, sample_weight=weights)",
            "jaxloss.mean("
            "jaxloss.mean(jaxloss.sigmoid_cross_entropy(logits, bits), axis=-1), "
            'weights=weights, denominator="count")',
        ),
    ],
    "optax": [
        Row(
            "softmax_cross_entropy_with_integer_labels(logits, ids).mean()",
            "jaxloss.mean(each)",
        ),
        Row(
            "softmax_cross_entropy_with_integer_labels(logits, ids).mean(where=mask)",
            "jaxloss.mean(each, where=mask)",
        ),
        Row(
            "(weights * softmax_cross_entropy_with_integer_labels(logits, ids)).sum()"
            " / weights.sum()",
            "jaxloss.mean(each, weights=weights)",
        ),
        Row(
            "softmax_cross_entropy(logits, bits, where=bits == 1).mean()",
            "jaxloss.mean(jaxloss.softmax_cross_entropy(logits, bits, "
            "where=bits == 1))",
        ),
        Row(
            "ranking_softmax_loss(logits, relevance, weights=each_weight)",
            "jaxloss.mean(jaxloss.listwise_softmax(logits, each_weight * relevance))",
        ),
    ],
}

EDGES: dict[str, list[Edge]] = {
    "torch": [
        Edge(
            "F.binary_cross_entropy(f32(0), f32(1))",
            "jaxloss.sigmoid_cross_entropy(f32(-inf), f32(1))",
        ),
        Edge(
            "F.binary_cross_entropy_with_logits(f32(inf), f32(1))",
            "jaxloss.sigmoid_cross_entropy(f32(inf), f32(1))",
        ),
        Edge(
            "F.cross_entropy(f32(20, 0, 0), ids(0))",
            "jaxloss.softmax_cross_entropy(f32(20, 0, 0), ids(0))",
        ),
        Edge(
            "F.cross_entropy(f32(0, 0, -inf), f32(0.5, 0.5, 0))",
            "jaxloss.softmax_cross_entropy(f32(0, 0, -inf), f32(0.5, 0.5, 0))",
        ),
        Edge(
            "F.cross_entropy(f32(1, 2), ids(-100))",
            "jaxloss.mean(jaxloss.softmax_cross_entropy(f32(1, 2), ids(-100)), "
            "where=ids(-100) != -100)",
        ),
        Edge(
            "F.cross_entropy(f32(1, 2), ids(2))",
            "jaxloss.softmax_cross_entropy(f32(1, 2), ids(2))",
        ),
        Edge(
            "F.cross_entropy(f32(1, 2), ids(-1))",
            "jaxloss.softmax_cross_entropy(f32(1, 2), ids(-1))",
        ),
        Edge(
            'F.kl_div(f32(0, -inf), f32(1, 0), reduction="sum")',
            "jaxloss.kl_divergence(f32(0, -inf), f32(1, 0))",
        ),
        Edge(
            "F.gaussian_nll_loss(f32(1e-3), f32(0), f32(1e-8), full=True)",
            "jaxloss.gaussian_nll(f32(1e-3), f32(0), jnp.log(f32(1e-8)))",
        ),
        Edge(
            "F.triplet_margin_loss(f32(0, 0), f32(0, 0), f32(3, 4), margin=5)",
            "jaxloss.triplet_margin(f32(0, 0), f32(0, 0), f32(3, 4), margin=5)",
        ),
        Edge(
            "grad(lambda x: F.cosine_similarity(x, f32(1, 0), dim=-1))(f32(0, 0))",
            "grad(lambda x: jaxloss.cosine_similarity(x, f32(1, 0)))(f32(0, 0))",
        ),
        Edge(
            "F.cosine_similarity(f32(3e-25, 4e-25), f32(4, 3), dim=-1)",
            "jaxloss.cosine_similarity(f32(3e-25, 4e-25), f32(4, 3))",
        ),
        Edge(
            "grad(lambda x: F.margin_ranking_loss(x, f32(1), f32(1)))(f32(1))",
            "grad(lambda x: jaxloss.margin_ranking(x, f32(1)))(f32(1))",
        ),
        Edge(
            'F.l1_loss(f32(1, 2), f32([1], [2]), reduction="none")',
            "jaxloss.absolute_error(f32(1, 2), f32([1], [2]))",
        ),
        Edge(
            "F.cross_entropy(f16(0, 0, 0), ids(0))",
            "jaxloss.softmax_cross_entropy(f16(0, 0, 0), ids(0))",
        ),
    ],
    "keras": [
        Edge(
            "binary_crossentropy(f32(1, 0), f32(0, 1))",
            "jaxloss.mean(jaxloss.sigmoid_cross_entropy(f32(-inf, inf), f32(1, 0)))",
        ),
        Edge(
            "categorical_crossentropy(f32(1, 0), f32(0, 1))",
            "jaxloss.nll(stable.log_probabilities(f32(0, 1)), f32(1, 0))",
        ),
        Edge(
            "categorical_crossentropy(f32(1, 0, 0), f32(20, 0, 0), from_logits=True)",
            "jaxloss.softmax_cross_entropy(f32(20, 0, 0), f32(1, 0, 0))",
        ),
        Edge(
            "categorical_crossentropy(f32(1, 0), f32(0, -inf), from_logits=True)",
            "jaxloss.softmax_cross_entropy(f32(0, -inf), f32(1, 0))",
        ),
        Edge(
            "sparse_categorical_crossentropy(ids(3), f32(1, 2, 3), from_logits=True)",
            "jaxloss.softmax_cross_entropy(f32(1, 2, 3), ids(3))",
        ),
        Edge(
            "kl_divergence(f32(0.5, 0.5), f32(1, 0))",
            "jaxloss.kl_divergence(stable.log_probabilities(f32(1, 0)), f32(0.5, 0.5))",
        ),
        Edge(
            "log_cosh(f32(0, 0), f32(1e-4, 1e-4))",
            "jaxloss.mean(jaxloss.log_cosh(f32(1e-4, 1e-4), f32(0, 0)))",
        ),
        Edge(
            "mean_absolute_percentage_error(f32(0, 1), f32(1, 1))",
            "100 * jaxloss.mean("
            "jaxloss.absolute_percentage_error(f32(1, 1), f32(0, 1)))",
        ),
        Edge(
            "mean_squared_logarithmic_error(f32(0, 0), f32(-0.5, -0.5))",
            "jaxloss.mean(jaxloss.squared_log_error(f32(-0.5, -0.5), f32(0, 0)))",
        ),
        Edge(
            "dice(f32(0, 0), f32(0, 0))",
            "jaxloss.dice(f32(0, 0), f32(0, 0), axis=0)",
        ),
        Edge(
            "hinge(f32(0, 1), f32(0.5, 0.5))",
            "jaxloss.mean(jaxloss.hinge(f32(0.5, 0.5), f32(0, 1)))",
        ),
        Edge(
            "grad(lambda x: cosine_similarity(f32(1, 0), x))(f32(0, 0))",
            "grad(lambda x: -jaxloss.cosine_similarity(x, f32(1, 0)))(f32(0, 0))",
        ),
        Edge(
            "mean_squared_error(f32([1], [2]), f32(1, 2))",
            "jaxloss.squared_error(f32(1, 2), f32([1], [2]))",
        ),
        Edge(
            "categorical_crossentropy(f16(1, 0, 0), f16(0, 0, 0), from_logits=True)",
            "jaxloss.softmax_cross_entropy(f16(0, 0, 0), f16(1, 0, 0))",
        ),
    ],
}
