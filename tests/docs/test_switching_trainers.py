"""The page about T5X, fairseq, TRL and MONAI: each row has the number of theirs.

Their formulas stand here as their sources have them, in NumPy's terms, for `jax.numpy`
in float64: none of the four is installed.
"""

import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import entr

import jaxloss
from jaxloss import train

DOCS = pathlib.Path(__file__).parents[2] / "docs"
ROWS = re.findall(
    r"^\| `(.*)` \| `(.*)` \|$", (DOCS / "switching-from-trainers.md").read_text(), re.M
)


def data(dtype):
    """The arrays that the expressions name."""
    rng = np.random.default_rng(3)
    draw = lambda *shape: 2 * rng.normal(size=shape)
    probabilities = np.exp(draw(3, 4, 5, 6))
    probabilities /= probabilities.sum(1, keepdims=True)
    masks = np.eye(4)[rng.permutation(np.arange(30) % 4)].T.reshape(4, 5, 6)
    arrays = {
        "logits": draw(3, 7, 5),
        "weights": np.arange(7) < np.array([[7], [2], [4]]),
        "log_probs": -np.abs(draw(3, 4, 6)),
        "rewards": draw(3, 4),
        "four": -np.abs(draw(4, 3, 6)),
        "probabilities": probabilities,
        "masks": np.stack([np.roll(masks, i, axis=2) for i in range(3)]),
    }
    arrays["old_log_probs"] = arrays["log_probs"] + 0.1 * draw(3, 4, 6)
    answer = np.arange(6) < np.array([[6], [1], [3]])
    fixed = {"ids": rng.integers(0, 5, (3, 7)), "answer": answer}
    return {k: jnp.asarray(x, dtype) for k, x in arrays.items()} | fixed


def other_classes(logits, ids, smoothing):
    """Fairseq's and T5X's targets against the log-softmax, written out."""
    off = smoothing / (logits.shape[-1] - 1)
    right = jax.nn.one_hot(ids, logits.shape[-1], dtype="float64")
    targets = right * (1 - smoothing - off) + off
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def t5x(logits, ids, weights, z=0.0):
    """Per token: less the entropy of the target, with the z-loss, and weighted."""
    entropy = -(0.9 * np.log(0.9) + 4 * 0.025 * np.log(0.025 + 1e-20))
    z_loss = z * jax.nn.logsumexp(logits, axis=-1) ** 2
    return weights * (other_classes(logits, ids, 0.1) - entropy + z_loss)


def grpo(new, old, rewards, scale):
    """TRL's clipped surrogate, with advantages divided by `scale`."""
    advantages = ((rewards - rewards.mean(1, keepdims=True)) / scale)[..., None]
    ratio = jnp.exp(new - old)
    clipped = jnp.clip(ratio, 0.8, 1.2)
    return -jnp.minimum(ratio * advantages, clipped * advantages)


def gain(d, total):
    """Of the policy over the reference, from what `total` makes of each answer."""
    chosen, rejected, old_chosen, old_rejected = (total(x) for x in d["four"])
    return (chosen - rejected) - (old_chosen - old_rejected)


def ratio(hit, wrong_area, smooth=1e-5):
    return 1 - (hit + smooth) / (hit + wrong_area + smooth)


def generalized_dice(p, t):
    w = 1 / t.sum((2, 3)) ** 2
    hit, area = (w * (p * t).sum((2, 3))).sum(1), (w * (p + t).sum((2, 3))).sum(1)
    return 1 - (2 * hit + 1e-5) / (area + 1e-5)


def tversky(p, t):
    hit, missed, added = p * t, (1 - p) * t, p * (1 - t)
    hit, wrong = hit.sum((2, 3)), (0.3 * added + 0.7 * missed).sum((2, 3))
    return ratio(hit, wrong)


def dice(p, t, axis):
    hit, area = 2 * (p * t).sum(axis), (p + t).sum(axis)
    return 1 - (hit + 1e-5) / (area + 1e-5)


def per_sequence(d):
    """The mean over tokens, and then over sequences: weights are divided by lengths."""
    share = d["weights"] / d["weights"].sum(-1, keepdims=True)
    return t5x(d["logits"], d["ids"], share).sum() / share.sum()


def in_group(d, more):
    scale = jnp.std(d["rewards"], 1, ddof=1, keepdims=True) + more
    return grpo(d["log_probs"], d["old_log_probs"], d["rewards"], scale)


T5X = "compute_weighted_cross_entropy(logits, ids, weights, 0.1"
THEIRS = {
    "label_smoothed_nll_loss(log_probs, ids, 0.1, reduce=False)": (
        "logits",
        lambda d: other_classes(d["logits"], d["ids"], 0.1),
    ),
    f"{T5X})": (
        "logits",
        lambda d: t5x(d["logits"], d["ids"], d["weights"]).sum(),
    ),
    f"{T5X}, z_loss=1e-4)": (
        "logits",
        lambda d: t5x(d["logits"], d["ids"], d["weights"], 1e-4).sum(),
    ),
    f"{T5X}, loss_normalizing_factor=NUM_REAL_TARGET_TOKENS)": (
        "logits",
        lambda d: t5x(d["logits"], d["ids"], d["weights"]).sum() / d["weights"].sum(),
    ),
    f"{T5X}, loss_normalizing_factor=AVERAGE_PER_SEQUENCE)": ("logits", per_sequence),
    'GRPOConfig(scale_rewards="group")': ("log_probs", lambda d: in_group(d, 1e-4)),
    'GRPOConfig(scale_rewards="none")': (
        "log_probs",
        lambda d: grpo(d["log_probs"], d["old_log_probs"], d["rewards"], 1),
    ),
    'DPOConfig(loss_type="ipo", beta=0.1)': (
        "four",
        lambda d: (
            (
                gain(d, lambda x: (x * d["answer"]).sum(-1) / d["answer"].sum(-1))
                - 1 / (2 * 0.1)
            )
            ** 2
        ),
    ),
    'DPOConfig(loss_type="sigmoid", beta=0.1)': (
        "four",
        lambda d: jnp.log1p(
            jnp.exp(-0.1 * gain(d, lambda x: (x * d["answer"]).sum(-1)))
        ),
    ),
    'DiceLoss(reduction="none")': (
        "probabilities",
        lambda d: dice(d["probabilities"], d["masks"], (2, 3)),
    ),
    "DiceLoss(batch=True)": (
        "probabilities",
        lambda d: dice(d["probabilities"], d["masks"], (0, 2, 3)).mean(),
    ),
    'TverskyLoss(alpha=0.3, beta=0.7, reduction="none")': (
        "probabilities",
        lambda d: tversky(d["probabilities"], d["masks"]),
    ),
    'GeneralizedDiceLoss(reduction="none")': (
        "probabilities",
        lambda d: generalized_dice(d["probabilities"], d["masks"]),
    ),
}


def value_and_gradient(fn, arrays, name):
    """The values, and the gradient of their sum with uneven weights."""
    value = fn(arrays)
    uneven = np.linspace(1, 2, value.size).reshape(value.shape)
    total = lambda x: jnp.sum(uneven * fn({**arrays, name: x}).astype("float64"))
    return value, jax.grad(total)(arrays[name])


def test_the_page_has_these_rows():
    """No formula of theirs is left over, none is missing."""
    assert [theirs for theirs, _ in ROWS] == [*THEIRS]


@pytest.mark.parametrize(("theirs", "ours"), ROWS, ids=[row[0] for row in ROWS])
def test_ours_are_the_numbers_of_theirs(theirs, ours):
    """Value and gradient: to 1e-12 in float64, and to 3e-7 in float32."""
    name, formula = THEIRS[theirs]
    words = {"jaxloss": jaxloss, "jnp": jnp, "entr": entr}
    mine = lambda arrays: eval(ours, {**words, **arrays})
    with jax.enable_x64(True):
        for dtype, bound in {"float64": 1e-12, "float32": 3e-7}.items():
            arrays = data(dtype)
            exact = {k: np.asarray(x, float) for k, x in arrays.items() if k != "ids"}
            exact |= {"ids": arrays["ids"]}
            expected = value_and_gradient(formula, exact, name)
            found = value_and_gradient(mine, arrays, name)
            for one, other in zip(found, expected, strict=True):
                assert one.shape == other.shape
                off = np.abs(np.asarray(one, float) - other).max() / np.abs(other).max()
                assert off < bound, (dtype, off)


@pytest.mark.parametrize(("k", "smoothing"), [(2, 0.3), (3, 0.0), (7, 0.1), (4, 0.75)])
def test_smoothing_over_the_other_classes(k, smoothing):
    """An epsilon of `e K / (K - 1)` for any K, up to the uniform target."""
    rng = np.random.default_rng(k)
    logits, ids = rng.normal(size=(5, k)), rng.integers(0, k, 5)
    with jax.enable_x64(True):
        found = jaxloss.softmax_cross_entropy(
            logits, ids, label_smoothing=smoothing * k / (k - 1)
        )
        expected = other_classes(logits, ids, smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_a_confident_model_has_the_least_loss():
    """T5X subtracts the entropy, so that the smoothed label itself has loss 0."""
    target = np.where(np.arange(5) == 2, 0.9, 0.025)
    with jax.enable_x64(True):
        d = {"logits": np.log(target), "ids": np.array(2), "weights": np.array(1.0)}
        found = eval(ROWS[1][1], {"jaxloss": jaxloss, "entr": entr, **d})
    assert abs(found) < 1e-15


def test_the_example_trains_with_the_loss_of_t5x(capsys):
    """It learns; over micro-batches, loss and gradient are T5X's of the batch."""
    path = DOCS / "examples/train_t5.py"
    assert len(path.read_text().splitlines()) <= 40
    names: dict[str, Any] = {}
    with jax.enable_x64(False):
        exec(compile(path.read_text(), path, "exec"), names)
    assert capsys.readouterr().out.startswith("loss [")
    assert names["losses"][-1] < 0.3 < 2 < names["losses"][0]
    params, ids = names["state"].params, (20 - names["words"]) % 20
    assert 0.2 < np.mean(ids == 0) < 0.6  # so much padding, and in uneven parts

    def fn(params):
        logits, targets = names["net"](params, names["words"]), ids
        off, z = 0.1 / 19, jax.nn.logsumexp(logits, axis=-1)
        entropy = -(0.9 * np.log(0.9) + 19 * off * np.log(off + 1e-20))
        losses = other_classes(logits, targets, 0.1) - entropy + 1e-4 * z**2
        return jnp.sum(losses * (targets > 0)) / np.sum(targets > 0)

    batch = {"from": names["words"], "to": ids}
    evaluate = train.value_and_grad(names["objective"], microbatches=4)
    with jax.enable_x64(False):
        found = evaluate(params, names["state"].objective_state, batch)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: np.asarray(x, float), params)
        value, slopes = jax.value_and_grad(fn)(params)
    np.testing.assert_allclose(found.loss, value, rtol=3e-6)
    for name, slope in slopes.items():
        size = np.abs(slope).max()
        np.testing.assert_allclose(found.grads[name], slope, atol=1e-5 * size, rtol=0)
