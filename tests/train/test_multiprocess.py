"""Two real processes, each with its own rows of the batch, find one gradient.

They are started here, talk over loopback, and have two virtual devices each.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from jaxloss import Mean, train

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 60

# --- the objective -----------------------------------------------------------------


def make_batch():
    """16 rows; the first process has few labels and its second device has none."""
    rng = np.random.default_rng(0)
    valid = np.array([1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1], bool)
    x = rng.normal(size=(16, 3)).astype(np.float32)
    return {"x": x, "y": x.sum(-1) + np.arange(16, dtype=np.float32), "valid": valid}


def make_params():
    return np.array([0.5, -1.0, 2.0], np.float32)


def fn(params, batch):
    losses = (batch["x"] @ params - batch["y"]) ** 2
    return {"error": Mean.of(losses, where=batch["valid"])}


def root(state, totals):
    """Not linear in the mean, so that the slope needs the rows of both processes."""
    return jnp.sqrt(totals["error"].compute()), {}


def expected():
    """The root of the mean over the valid rows, and its gradient, in float64."""
    batch, w = make_batch(), make_params().astype(np.float64)
    x, y = (batch[name][batch["valid"]].astype(np.float64) for name in ("x", "y"))
    off = x @ w - y
    loss = np.sqrt(np.mean(off**2))
    return loss, x.T @ off / len(off) / loss


# --- what each process runs ----------------------------------------------------------


def work(process, port):
    """Prints the loss and the gradient, by each way to use the devices."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(
        f"127.0.0.1:{port}", 2, process, initialization_timeout=SECONDS
    )
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, P("data"))
    batch = {
        name: jax.make_array_from_process_local_data(rows, x[process * 8 :][:8])
        for name, x in make_batch().items()
    }
    objective = train.objective(fn, root)

    def step(axis_name):
        evaluate = train.value_and_grad(objective, microbatches=2, axis_name=axis_name)
        return lambda params, batch: evaluate(params, objective.init(), batch)[0:3:2]

    mapped = jax.shard_map(
        step("data"), mesh=mesh, in_specs=(P(), P("data")), out_specs=P()
    )
    found = {
        name: [x.tolist() for x in jax.device_get(jax.jit(way)(make_params(), batch))]
        for name, way in (("jit", step(None)), ("shard_map", mapped))
    }
    print(json.dumps(found | {"devices": jax.device_count()}), flush=True)
    jax.distributed.shutdown()


# --- the test ------------------------------------------------------------------------


@pytest.fixture
def both(tmp_path):
    """What the two processes printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [tmp_path / f"{process}.txt" for process in range(2)]
    processes = [start(process, port, log) for process, log in enumerate(logs)]
    try:
        # One of them waits for the other, so an error of either is the end.
        deadline = time.monotonic() + SECONDS
        while any(p.poll() is None for p in processes) and not any(
            p.poll() for p in processes
        ):
            assert time.monotonic() < deadline, "timeout"
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
        printed = [process.communicate()[0] for process in processes]
    codes = [process.returncode for process in processes]
    assert codes == [0, 0], "\n\n".join(log.read_text() for log in logs)
    return [json.loads(out.splitlines()[-1]) for out in printed]


def start(process, port, log):
    """A Python of its own, which inherits neither devices nor a proxy."""
    unwanted = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "JAX_PLATFORMS")
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in unwanted and not name.lower().endswith("_proxy")
    }
    code = "import sys; from tests.train.test_multiprocess import work; "
    code += "work(*map(int, sys.argv[1:]))"
    with log.open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", code, str(process), str(port)],
            cwd=ROOT,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=errors,
        )


def test_two_processes_find_the_gradient_of_one(both):
    """A masked batch of which no process has all rows, in two micro-batches."""
    for found in both:
        assert found["devices"] == 4
        for way in ("jit", "shard_map"):
            for got, want in zip(found[way], expected(), strict=True):
                off = np.linalg.norm(got - want)
                assert off <= 1e-6 * np.linalg.norm(want), way
