"""Prints where the formulas of textbooks fail in float32, and what is true.

    python -m bench.naive [--write docs/numerics.md]

Each row evaluates the formula as it is usually typed, and the function of this library;
the true value is a closed form.
"""

import argparse
import math
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxloss
from bench.optax_edges import array_of, shown
from bench.pages import put
from jaxloss import stable

inf, nan = math.inf, math.nan
E20 = math.exp(-20)
SMALL = float(np.float32(1e-4))
TINY = float(np.float32(1e-8))
LARGE = float(np.float32(1e25))


class Row(NamedTuple):
    """What is typed, what is called instead, and what is true."""

    naive: str
    ours: str
    truth: Any
    ulps: float = 4
    """What float32 may be off by: 4, or more where the argument's own rounding is."""


def _focal_slope(x: float, gamma: float) -> float:
    """Of `-(1 - p)^gamma log p` in the logit of p: q^gamma (gamma p log p - q)."""
    q, p = 1 / (1 + math.exp(x)), 1 / (1 + math.exp(-x))
    return q**gamma * (-gamma * p * math.log1p(math.exp(-x)) - q)


ROWS = [
    Row("log(1 + exp(f32(100)))", "stable.softplus(f32(100))", 100),
    Row("log(1 + exp(f32(-20)))", "stable.softplus(f32(-20))", math.log1p(E20)),
    Row("log(1 - exp(-f32(1e-8)))", "stable.log1mexp(f32(1e-8))", math.log(TINY)),
    Row(
        "-log(1 - sigmoid(f32(20)))",
        "jaxloss.sigmoid_cross_entropy(f32(20), f32(0))",
        20 + math.log1p(E20),
    ),
    Row(
        "-log(softmax(f32(0, 200))[0])",
        "jaxloss.softmax_cross_entropy(f32(0, 200), 0)",
        200,
    ),
    Row(
        "-log(softmax(f32(20, 0))[0])",
        "jaxloss.softmax_cross_entropy(f32(20, 0), 0)",
        math.log1p(E20),
    ),
    Row(
        "log(sum(exp(f32(1000, 1000))))",
        "stable.logsumexp(f32(1000, 1000))",
        1000 + math.log(2),
    ),
    Row(
        "grad(lambda x: -((1 - sigmoid(x)) ** 0.5) * log(sigmoid(x)))(f32(20))",
        "grad(lambda x: jaxloss.sigmoid_focal(x, f32(1), gamma=0.5))(f32(20))",
        _focal_slope(20, 0.5),
        8,
    ),
    Row(
        "sum(f32(1, 0) * log(f32(1, 0) / f32(0.5, 0.5)))",
        "jaxloss.kl_divergence(log(f32(0.5, 0.5)), f32(1, 0))",
        math.log(2),
    ),
    Row(
        "-sum(softmax(f32(0, 0, -inf)) * log(softmax(f32(0, 0, -inf))))",
        "jaxloss.entropy(f32(0, 0, -inf))",
        math.log(2),
    ),
    Row("log(cosh(f32(200)))", "stable.log_cosh(f32(200))", 200 - math.log(2)),
    Row("log(cosh(f32(1e-4)))", "stable.log_cosh(f32(1e-4))", SMALL**2 / 2),
    Row("sqrt(sum(f32(3e25, 4e25) ** 2))", "stable.norm(f32(3e25, 4e25))", 5e25),
    Row("sqrt(sum(f32(3e-25, 4e-25) ** 2))", "stable.norm(f32(3e-25, 4e-25))", 5e-25),
    Row(
        "grad(lambda x: sqrt(sum(x**2)))(f32(0, 0))",
        "grad(stable.norm)(f32(0, 0))",
        [0, 0],
    ),
    Row(
        "1 - sum(f32(1, 1e-4) * f32(1, 0)) / norm(f32(1, 1e-4))",
        "jaxloss.cosine_distance(f32(1, 1e-4), f32(1, 0))",
        SMALL**2 / 2,
    ),
    Row(
        "(log(1 + f32(1e-8)) - log(1 + f32(0))) ** 2",
        "jaxloss.squared_log_error(f32(1e-8), f32(0))",
        TINY**2,
    ),
    Row(
        "(f32(1e25) ** 2 / exp(f32(100)) + f32(100) + log(2 * pi)) / 2",
        "jaxloss.gaussian_nll(f32(1e25), f32(0), f32(100))",
        (LARGE**2 * math.exp(-100) + 100 + math.log(2 * math.pi)) / 2,
    ),
    Row(
        "1 - 2 * sum(sigmoid(f32(20)) * 1) / (sum(sigmoid(f32(20))) + 1)",
        "jaxloss.dice(stable.sigmoid(f32([20])), f32([1]), axis=(0, 1), "
        "complements=stable.sigmoid(-f32([20])))",
        E20 / 2,
    ),
    Row(
        "sum(f32(2, nan) * f32(1, 0)) / sum(f32(1, 0))",
        "jaxloss.mean(f32(2, nan), where=f32(1, 0) == 1)",
        2,
    ),
    Row(
        "sum(f32(2, 3) * f32(0, 0)) / sum(f32(0, 0))",
        "jaxloss.mean(f32(2, 3), where=f32(0, 0) == 1)",
        0,
    ),
]

WORDS = {
    "jaxloss": jaxloss,
    "stable": stable,
    "f32": array_of(jnp.float32),
    "grad": jax.grad,
    "inf": inf,
    "nan": nan,
    "sigmoid": jax.nn.sigmoid,
    "softmax": jax.nn.softmax,
    "norm": jnp.linalg.norm,
    **{
        name: getattr(jnp, name) for name in ("cosh", "exp", "log", "pi", "sqrt", "sum")
    },
}


def value(call: str) -> np.ndarray:
    with jax.enable_x64(False):
        return np.asarray(eval(call, dict(WORDS)))


def table() -> str:
    rows = (
        f"| `{row.naive}` | {shown(value(row.naive))} | {shown(row.truth)} | "
        f"{shown(value(row.ours))} | `{row.ours}` |"
        for row in ROWS
    )
    return "| as typed | | true | here | |\n|---|---|---|---|---|\n" + "\n".join(rows)


MARK = "<!-- naive: python -m bench.naive --write -->"


def main() -> None:
    parser = argparse.ArgumentParser(description="Where naive formulas fail.")
    parser.add_argument("--write", type=pathlib.Path, help="the page to update")
    page = parser.parse_args().write
    if page is None:
        print(table())
        return
    put(page, MARK, table())


if __name__ == "__main__":
    main()
