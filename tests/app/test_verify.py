"""`jaxloss verify`: what it measures, prints, writes and refuses."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

import jaxloss
from jaxloss import claims
from jaxloss.app import verify
from tests.app.test_commands import refusal, run

[HUBER] = [c for c in claims.CLAIMS if c.name == "huber"]


def spoiled(fn):
    """Claims with one of `huber` that another function has to keep."""
    cases = tuple(dataclasses.replace(case, fn=fn) for case in HUBER.accuracy)
    return [dataclasses.replace(HUBER, accuracy=cases)]


def test_claims_that_hold(capsys):
    """A row for the loss, a line to quote, status 0."""
    status, out, error = run(capsys, "verify", "huber")
    head, row, summary = out.splitlines()
    assert (status, error) == (0, "")
    assert head.split() == ["value", "gradient", "second", "derivative"]
    assert row.split()[0] == "huber"
    assert row.endswith("  ok")
    device = jax.devices()[0].device_kind
    assert summary == f"1 loss, 0 bounds exceeded, {device}, jax {jax.__version__}"


def test_a_bound_that_is_exceeded(capsys, monkeypatch, tmp_path):
    """It is named with the input that shows it, in the table and in the file."""

    def rough(predictions, targets, *, delta):
        r = jnp.abs(predictions - targets)
        return jnp.where(r <= delta, 0.5000004 * r * r, delta * (r - 0.5 * delta))

    monkeypatch.setattr(claims, "CLAIMS", spoiled(rough))
    file = tmp_path / "claims.json"
    status, out, _ = run(capsys, "verify", "--out", str(file))
    assert status == 1
    assert "NOT ok" in out
    assert "    value: huber in " in out
    assert " bounds exceeded, " in out
    [record] = json.loads(file.read_text())["claims"]
    assert (record["name"], record["dtype"], record["ok"]) == (
        "huber",
        "float32",
        False,
    )
    assert (
        record["value"]["ulps"]
        > record["value"]["bound"]
        == HUBER.accuracy[0].bounds[0]
    )


def test_nan_is_beyond_every_bound(capsys, monkeypatch):
    """Not a number is no small error."""
    nan = lambda predictions, targets, *, delta: jnp.nan * predictions
    monkeypatch.setattr(claims, "CLAIMS", spoiled(nan))
    status, out, _ = run(capsys, "verify")
    assert status == 1
    assert "inf (1)" in out


def test_half_precision(capsys):
    """The value and the gradient; what has no claim in that dtype says so."""
    status, out, _ = run(capsys, "verify", "huber", "--dtype", "bfloat16")
    assert status == 0
    assert "huber, bfloat16" in out
    name = "stable.scalars.softplus"
    status, out, _ = run(capsys, "verify", name, "--dtype", "float16")
    assert status == 0
    assert "not claimed" in out
    assert "1 function, 0 bounds" in out


def test_every_pair(capsys):
    """Of logits in bfloat16 and labels there are few enough."""
    losses = ("sigmoid_cross_entropy", "sigmoid_focal")
    status, out, _ = run(capsys, "verify", *losses, "--exhaustive")
    assert status == 0
    _, *rows, summary = out.splitlines()
    assert [row.split(",")[0] for row in rows] == [*losses]
    assert all(row.endswith("  ok") for row in rows)
    assert "bfloat16 pairs" in rows[0]
    assert "2 losses, 0 bounds exceeded" in summary


def test_a_pair_that_is_off(capsys, monkeypatch):
    """It is named; and a wrong infinity is beyond every bound."""
    right = jaxloss.sigmoid_cross_entropy

    def rough(logits, labels):
        return right(logits, labels) * jnp.where(logits == 2.5, 1.01, 1)

    def capped(logits, labels):
        return jnp.minimum(right(logits, labels), 1e30)

    for loss, words in ((rough, "at (2.5, "), (capped, "inf (2)")):
        monkeypatch.setattr(jaxloss, "sigmoid_cross_entropy", loss)
        status, out, _ = run(capsys, "verify", "sigmoid_cross_entropy", "--exhaustive")
        assert status == 1
        assert words in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("hubr",), "no claim about 'hubr' (did you mean 'huber'?)"),
        (("huber", "--dtype", "float8"), "no dtype 'float8'"),
        (("huber", "--out", "none/claims.json"), "none is not a directory"),
        (("poisson_nll", "--exhaustive"), "choose among squared_error, absolute_error"),
        (("huber", "--exhaustive", "--dtype", "float16"), "leave out --dtype"),
    ],
)
def test_requests_that_cannot_be_met(capsys, arguments, words):
    """One line, with the remedy, before anything is measured."""
    assert words in refusal(capsys, "verify", *arguments)


def test_mpmath_is_asked_for(capsys, monkeypatch):
    """The formulas need it; the message says how to get it."""
    monkeypatch.setattr(verify.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'jaxloss[verify]'" in refusal(capsys, "verify", "huber")
