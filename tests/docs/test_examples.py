"""The training loops of `docs/examples` run, learn, and fit on a screen.

Each in a process of its own, in fewer steps, for two of them ask for two devices.  Then
what is special about a loop is looked at: where arrays are, and the gradient of the
last batch, against the formula that the loss has.
"""

import pathlib
import subprocess
import sys
import textwrap
from typing import Any

import jax
import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "docs" / "examples"
RUN = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_platforms", "cpu")
source = open({path!r}).read().replace("STEPS = 60", "STEPS = 24")
names = {{"__name__": "__main__"}}
exec(compile(source, {path!r}, "exec"), names)
globals().update(names)

def masked(losses, mask):
    return jnp.where(mask > 0, losses, 0).sum() / mask.sum()

def plain(logits, ids):
    picked = logits[np.arange(len(ids)), ids]
    return jax.nn.logsumexp(logits, axis=-1) - picked

def close(found, expected, relative=1e-4):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert jnp.linalg.norm(x - y) <= relative * jnp.linalg.norm(y), (x, y)

assert np.mean(losses[-4:]) < losses[0] / 2, losses
{checks}
print("checked")
"""
CHECKS = {
    "linen_fsdp": """
        kernel = state.params["layers_0"]["kernel"]
        moment = state.opt_state[0].mu["layers_0"]["kernel"]
        assert kernel.sharding.is_equivalent_to(shards, 2)
        assert moment.sharding.is_equivalent_to(shards, 2)
        params = jax.device_get(state.params)
        whole = lambda p: masked(
            plain(net.apply({"params": p}, batch["x"]), batch["y"]), batch["mask"])
        found = evaluate(state.params, held, jax.device_put(batch, shards))
        close((found.loss, found.grads), jax.value_and_grad(whole)(params))
        assert batch["mask"][128:].sum() == 0 < batch["mask"].sum()
    """,
    "pmap": """
        one, other = (jax.tree.map(lambda x: x[i], state.params) for i in (0, 1))
        jax.tree.map(np.testing.assert_array_equal, one, other)
        def whole(p):
            logits = jax.nn.relu(batch["x"] @ p["hidden"]) @ p["out"]
            return masked(plain(logits, batch["y"]), batch["mask"])
        loss, grads = jax.value_and_grad(whole)(one)
        state, metrics = step(state, parts)
        close(metrics["loss"][0], loss)
        after = jax.tree.map(lambda x: x[0], state.params)
        moved = jax.tree.map(lambda x, y: (x - y) / 0.5, one, after)
        close(moved, grads, 1e-3)
    """,
    "nnx_metrics": """
        logits = model(batch["x"])
        state, metrics = step(model, optimizer, state, batch)
        close(metrics["aux"], logits)
        right = (logits.argmax(-1) == batch["y"])[batch["labelled"]]
        close(metrics["accuracy"], right.mean())
        close(metrics["loss"], masked(plain(logits, batch["y"]), batch["labelled"]))
    """,
    "multi_steps": """
        many = []
        for kept in (64, 2, 0, 1):
            rows = rng.integers(0, len(y), 64)
            mask = (np.arange(64) < kept).astype("float32")
            many.append({"x": x[rows], "y": y[rows], "mask": mask})
            sums = add(params, held, many[-1], sums)
        found = finish(params, held, sums)
        batch = jax.tree.map(lambda *parts: np.concatenate(parts), *many)
        def whole(p):
            logits = jax.nn.relu(batch["x"] @ p["hidden"]) @ p["out"]
            return masked(plain(logits, batch["y"]), batch["mask"])
        close((found.loss, found.grads), jax.value_and_grad(whole)(params))
        steps = optax.MultiSteps(optax.sgd(1.0), 4)
        grad = jax.grad(loss_fn, has_aux=True)
        multi = steps.init(params)
        for part in many:
            updates, multi = steps.update(grad(params, part)[0], multi, params)
        assert not jnp.isfinite(updates["out"]).all()  # 0 / 0, of the third
    """,
}


@pytest.mark.parametrize("name", CHECKS)
def test_loops_learn(name):
    """At most 40 lines; and what each is there to show is so."""
    path = EXAMPLES / f"train_{name}.py"
    source = path.read_text()
    assert len(source.splitlines()) <= 40
    assert source.count("STEPS = 60") == 1
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            RUN.format(path=str(path), checks=textwrap.dedent(CHECKS[name])),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.startswith("loss ["), done.stderr
    assert done.stdout.splitlines()[-1] == "checked", done.stderr


def test_wrong_labels_are_not_learnt_by_heart():
    """With two values of q, one seed and fewer steps, the table says what it says."""
    source = (EXAMPLES / "noisy_digits.py").read_text()
    for old, new in (
        ("STEPS, SEEDS, HIDDEN = 600, 5", "STEPS, SEEDS, HIDDEN = 250, 1"),
        ("QS = [0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0]", "QS = [0.0, 0.8]"),
        ("right.std(ddof=1)", "right.std()"),
    ):
        assert source.count(old) == 1
        source = source.replace(old, new)
    names: dict[str, Any] = {"__name__": "__main__"}
    with jax.enable_x64(False):
        exec(compile(source, "noisy_digits.py", "exec"), names)
    (plain,), (general,) = names["held_out"]
    assert general > plain + 0.1
    (all_of_them,), (few,) = names["by_heart"]
    assert few < 0.3 < 0.7 < all_of_them
