"""The ported steps do what they did: their numbers are those of the formulas that the
other library documents, in NumPy; and the table of errors has what is raised."""

import contextlib
import functools
import io
import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

os.environ["KERAS_BACKEND"] = "jax"

import jaxloss

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "porting.md").read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
RATE, SMOOTHING, CLASSES = 0.1, 0.1, 3


@functools.cache
def session():
    """What a reader has who runs all code of the page; and what was printed."""
    names, seen = {}, io.StringIO()
    # As in a reader's session: Keras promotes ranks, which the suite forbids.
    with (
        jax.enable_x64(False),
        jax.numpy_rank_promotion("allow"),
        contextlib.redirect_stdout(seen),
    ):
        for block in BLOCK.findall(PAGE):
            exec(compile(block, "porting.md", "exec"), names)
    return names, seen.getvalue()


def forward():
    """Inputs, known labels as one-hot rows, the mask, and log-probabilities."""
    names, _ = session()
    x, w, b = (
        np.asarray(a, np.float64)
        for a in (names["x"], names["params"]["w"], names["params"]["b"])
    )
    y = np.asarray(names["y"])
    logits = x @ w + b
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return x, np.eye(CLASSES)[np.where(y >= 0, y, 0)], y >= 0, logs


def stepped(parts, divisor):
    """Loss and parameters after a step of SGD, of the loss `-sum(parts log p)`."""
    x, _, _, logs = forward()
    slope = (np.exp(logs) * parts.sum(axis=1, keepdims=True) - parts) / divisor
    before = session()[0]["params"]
    after = {
        "w": before["w"] - RATE * x.T @ slope,
        "b": before["b"] - RATE * slope.sum(axis=0),
    }
    return -np.sum(parts * logs) / divisor, after


def assert_same(found, loss, params, expected):
    np.testing.assert_allclose(found, expected[0], 1e-6)
    for name in params:
        np.testing.assert_allclose(params[name], expected[1][name], 1e-5, 1e-6)
    np.testing.assert_allclose(loss, found, 1e-6)


def test_the_step_of_torch():
    """`CrossEntropyLoss` as documented: a weight for the term of each class, divided
    by the weights of the labels; in one batch and in four parts."""
    names, _ = session()
    _, labels, known, _ = forward()
    weights = np.array([1.0, 2.0, 5.0])
    smoothed = (1 - SMOOTHING) * labels + SMOOTHING / CLASSES
    parts = known[:, None] * weights * smoothed
    expected = stepped(parts, np.sum(known[:, None] * weights * labels))
    loss = names["loss_of_torch"]
    assert_same(loss, loss, names["after_torch"], expected)
    assert_same(loss, names["metrics"]["nats"], names["after_torch_in_parts"], expected)


def test_the_short_form_weighs_examples():
    """Each smoothed loss by the weight of its label: not the number of torch."""
    names, printed = session()
    _, labels, known, _ = forward()
    weight = known * (labels @ np.array([1.0, 2.0, 5.0]))
    smoothed = (1 - SMOOTHING) * labels + SMOOTHING / CLASSES
    short, _ = stepped(weight[:, None] * smoothed, weight.sum())
    np.testing.assert_allclose(names["loss_of_short"], short, 1e-6)
    assert abs(names["loss_of_short"] - names["loss_of_torch"]) > 0.01
    for name in ("torch", "short"):
        value = printed.splitlines()[name == "short"]
        assert f"print(loss_of_{name})  # {value}\n" in PAGE


def test_the_step_of_keras():
    """`sum_over_batch_size` under a mask: the weighted sum by the number that is left;
    in `compile`, and without Keras."""
    names, _ = session()
    _, labels, known, _ = forward()
    weights = known * np.asarray(names["sample_weights"])
    expected = stepped(weights[:, None] * labels, known.sum())
    loss = names["loss_of_keras"]
    assert_same(loss, names["loss_of_compile"], names["after_keras"], expected)
    w, b = (np.asarray(v.value) for v in names["keras_model"].weights)
    assert_same(loss, loss, {"w": w, "b": b}, expected)


def test_the_step_of_optax():
    """The mean over all labels of the four batches, and its gradient."""
    names, _ = session()
    _, labels, known, _ = forward()
    expected = stepped(known[:, None] * labels, known.sum())
    loss = names["loss_of_optax"]
    assert_same(loss, names["found"].loss, names["after_optax"], expected)
    for name, grads in names["grads_of_optax"].items():
        after = names["params"][name] - RATE * grads
        np.testing.assert_allclose(after, expected[1][name], 1e-5, 1e-6)


def test_the_error_of_validate_is_quoted():
    """The last block prints the comment under it."""
    _, printed = session()
    *_, value, error = printed.splitlines()
    assert f"  # {value}; " in PAGE
    assert error in PAGE.replace("\n# ", " ")


# --- the table of errors -------------------------------------------------------------

X, IDS, ONES = jnp.ones((4, 3)), jnp.array([0, 1, 2, 0]), jnp.ones(4)
LOSS: Any = jaxloss  # so that a type checker lets wrong calls pass
CALLS = [
    *(
        lambda name=name, value=value: LOSS.softmax_cross_entropy(
            X, IDS, **{name: value}
        )
        for name, value in {
            "reduction": "mean",
            "weight": jnp.ones(3),
            "ignore_index": -100,
            "ignore_class": 0,
            "from_logits": True,
            "sample_weight": ONES,
        }.items()
    ),
    lambda: LOSS.softmax_focal(X, IDS, label_smoothing=0.1),
    lambda: LOSS.huber(ONES, ONES, 1.0),
    lambda: LOSS.dice(X, X),
    lambda: LOSS.huber(ONES, X[:, :1]),
    lambda: LOSS.huber(ONES, IDS),
    lambda: LOSS.softmax_cross_entropy(X, ONES),
    lambda: LOSS.mean(ONES, where=ONES),
    lambda: LOSS.hinge(ONES, ONES > 0),
    "Keras calls it as",  # in tests/compat/test_keras.py
    lambda: LOSS.cross_entropy,
]
ROWS = re.findall(r"^\| `(.+?)` \|", PAGE.split("| error |")[1], re.M)


def test_the_table_has_a_row_for_each_call():
    """And nothing else."""
    assert len(ROWS) == len(CALLS)


@pytest.mark.parametrize(("row", "call"), [*zip(ROWS, CALLS, strict=False)], ids=ROWS)
def test_the_error_has_the_text_of_its_row(row, call):
    """So that a search for the message finds the page."""
    if isinstance(call, str):
        assert row == call
    else:
        with pytest.raises((TypeError, ValueError, AttributeError)) as raised:
            call()
        assert row in str(raised.value)
