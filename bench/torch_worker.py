"""A process that runs torch's side of a case, one repeat when told to.

It has the standard input and output of `peers.Worker` at the other end: a line of JSON
in, a line of JSON out.  A process of its own, because two pools of threads in one slow
each other down.
"""

import importlib
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.arguments import Arg, draw

torch: Any = importlib.import_module("torch")
F = torch.nn.functional


def focal(x: Any, y: Any) -> Any:
    """As torchvision has it, without alpha."""
    p = torch.sigmoid(x)
    entropy = F.binary_cross_entropy_with_logits(x, y, reduction="none")
    return (entropy * (1 - (p * y + (1 - p) * (1 - y))) ** 2).mean()


def log_cosh(x: Any, y: Any) -> Any:
    r = x - y
    return (r + F.softplus(-2 * r) - math.log(2)).mean()


def linear(hidden: Any, kernel: Any, ids: Any) -> Any:
    return F.cross_entropy(hidden @ kernel, ids)


def token_log_probs(hidden: Any, kernel: Any, ids: Any) -> Any:
    return -F.cross_entropy(hidden @ kernel, ids, reduction="none")


def clip(first: Any, second: Any) -> Any:
    scores = F.normalize(first) @ F.normalize(second).T / 0.07
    ids = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, ids) + F.cross_entropy(scores.T, ids)) / 2


def dpo(hidden: Any, kernel: Any, ids: Any, mask: Any, reference: Any) -> Any:
    log_probs = torch.log_softmax(hidden @ kernel, -1)
    tokens = log_probs.gather(-1, ids[..., None])[..., 0] * mask
    chosen, rejected = (tokens.sum(-1) - reference).chunk(2)
    return -F.logsigmoid(0.1 * (chosen - rejected)).mean()


def ctc(logits: Any, ids: Any) -> Any:
    log_probs = torch.log_softmax(logits, -1).transpose(0, 1)
    lengths = [torch.full((len(logits),), x.shape[1]) for x in (logits, ids)]
    return F.ctc_loss(log_probs, ids, *lengths, reduction="none").mean()


LOSSES: dict[str, Callable[..., Any]] = {
    "huber": F.huber_loss,
    "sigmoid_cross_entropy": F.binary_cross_entropy_with_logits,
    "sigmoid_focal": focal,
    "log_cosh": log_cosh,
    "softmax_cross_entropy": F.cross_entropy,
    "smoothed": lambda x, ids: F.cross_entropy(x, ids, label_smoothing=0.1),
    "linear": linear,
    "token_log_probs": token_log_probs,
    "clip": clip,
    "dpo": dpo,
    "ctc": ctc,
}


def resident(name: str) -> int:
    """`VmRSS` or `VmHWM` of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


class Problem:
    """One loss and its arguments on the device."""

    def __init__(self, loss: str, args: list, wrt: list[int], device: str) -> None:
        self.fn, self.wrt, self.device = LOSSES[loss], wrt, device
        described = tuple(Arg(a[0], tuple(a[1]), *a[2:]) for a in args)
        self.args = []
        for arg, x in zip(described, draw(described), strict=True):
            # torch wants ids in int64.
            x = torch.from_numpy(x.astype(np.int64) if x.dtype == np.int32 else x)
            half = {"dtype": torch.bfloat16} if arg.dtype == "bfloat16" else {}
            self.args.append(x.to(device, **half))
        for i in wrt:
            self.args[i].requires_grad_()

    def step(self) -> tuple[Any, tuple]:
        with torch.set_grad_enabled(bool(self.wrt)):
            value = self.fn(*self.args)
        wrt = [self.args[i] for i in self.wrt]
        return value, torch.autograd.grad(value, wrt) if wrt else ()

    def time(self, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            self.step()
        if self.device != "cpu":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start) / calls

    def first(self, rows: int, to: str) -> dict[str, int]:
        """Runs once; leaves the result in a file, and says what room it took."""
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = resident("VmRSS")
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        value, grads = self.step()
        peak = resident("VmHWM")
        if self.device != "cpu":
            peak = torch.cuda.max_memory_allocated()
        tail = [g[:rows].detach().float().cpu().numpy() for g in grads[:1]]
        value = value.detach().float().cpu().numpy()
        np.savez(to, value=value, **({"slope": tail[0]} if tail else {}))
        output = sum(g.numel() * g.element_size() for g in grads)
        return {"temp_bytes": max(peak - before - output, 0), "output_bytes": output}


def answer(order: dict[str, Any], problems: dict[str, Problem]) -> Any:
    match order.pop("do"):
        case "prepare":
            problems["it"] = Problem(**order)
            return None
        case "first":
            return problems["it"].first(**order)
        case "time":
            return problems["it"].time(**order)


def main() -> None:
    problems: dict[str, Problem] = {}
    for line in sys.stdin:
        try:
            reply = {"result": answer(json.loads(line), problems)}
        except Exception as e:
            reply = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
