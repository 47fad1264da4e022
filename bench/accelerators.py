"""Accelerators that programs are compiled for, on a machine that has none of them."""

import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Nothing here imports JAX before `prepare` has set what it reads.

EXTRA = "pip install 'jaxloss[accelerators]'"


class Accelerator(NamedTuple):
    """One device, and what it can do at most."""

    title: str
    platform: str
    """As JAX calls it: gpu or tpu."""
    topology: Mapping[str, str]
    """What `jax.experimental.topologies.get_topology_desc` is told."""
    meshes: Mapping[int, str]
    """By number of devices, how they are arranged."""
    machine: str
    """The kind of machine that Google calls it; empty for others."""
    packages: tuple[str, ...]
    """Modules that its compiler needs."""
    bandwidth: float
    """Bytes per second from and to its memory."""
    peaks: Mapping[str, float]
    """Operations per second in matrix products of each kind: of `half` precision, of
    float32 by default, with `high` and with `highest` precision."""
    source: str
    """Where the numbers are from."""


def _tpu(version: str, machine: str, bandwidth: float, peak: float) -> Accelerator:
    """A product of float32 is one of bfloat16 by default, and 3 or 6 if it is to be
    exact: `jax.lax.Precision`."""
    passes = {"half": 1, "default": 1, "high": 3, "highest": 6}
    return Accelerator(
        title=f"TPU {version}",
        platform="tpu",
        topology={"platform": "tpu", "topology_name": version},
        meshes={4: "2x2", 8: "2x4"},
        machine=machine,
        packages=("libtpu",),
        bandwidth=bandwidth,
        peaks={kind: peak / number for kind, number in passes.items()},
        source=f"https://cloud.google.com/tpu/docs/{version}",
    )


ACCELERATORS = {
    "h200": Accelerator(
        title="NVIDIA H200",
        platform="gpu",
        topology={"platform": "cuda", "topology_name": "h200"},
        meshes={1: "1x1x1", 8: "1x1x8"},
        machine="",
        packages=("jax_plugins.xla_cuda12", "nvidia.cuda_nvcc"),
        bandwidth=4.8e12,
        # Without sparsity; TF32 by default, float32 outside of the tensor cores.
        peaks={"half": 989e12, "default": 494e12, "high": 494e12, "highest": 67e12},
        source="https://www.nvidia.com/en-us/data-center/h200/",
    ),
    "v5e": _tpu("v5e", "v5litepod-4", 819e9, 197e12),
    "v6e": _tpu("v6e", "v6e-4", 1640e9, 918e12),
}


def missing(accelerator: Accelerator) -> list[str]:
    """The modules of its compiler that are not installed."""
    return [name for name in accelerator.packages if not _found(name)]


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package that it is in
        return False


def prepare(accelerator: Accelerator) -> None:
    """Sets what JAX and the compiler read when they are imported."""
    if absent := missing(accelerator):
        raise SystemExit(
            f"{' and '.join(absent)}: not installed; {EXTRA} brings the compiler for "
            f"the {accelerator.title}"
        )
    os.environ |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if accelerator.platform == "tpu":
        # No other process has to leave a chip that is not there, and no server knows
        # which one it is.
        os.environ |= {
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": accelerator.machine,
            "TPU_WORKER_HOSTNAMES": "localhost",
        }
        return
    [folder] = importlib.import_module("nvidia.cuda_nvcc").__path__
    flags = {
        "xla_gpu_cuda_data_dir": folder,
        # Which kernel of a library is the fastest, only the device can say.
        "xla_gpu_autotune_level": 0,
        "xla_gpu_enable_triton_gemm": "false",
    }
    given = [os.environ.get("XLA_FLAGS", ""), *(f"--{k}={v}" for k, v in flags.items())]
    os.environ["XLA_FLAGS"] = " ".join(given).strip()
    os.environ["PATH"] = f"{folder}/bin{os.pathsep}{os.environ['PATH']}"


def devices(accelerator: Accelerator, count: int) -> Sequence[Any]:
    """What programs of so many devices are compiled for."""
    from jax.experimental import topologies

    options = dict(accelerator.topology)
    # The least that there is of a TPU has several devices.
    arranged = accelerator.meshes.get(count) or next(iter(accelerator.meshes.values()))
    if accelerator.platform == "gpu":
        described = Path(__file__).with_name(f"{options['topology_name']}.txtpb")
        options |= {"topology": arranged, "target_config": described.read_text()}
    else:
        options["topology_name"] += f":{arranged}"
    return topologies.get_topology_desc(**options).devices[:count]
