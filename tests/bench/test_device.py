"""`bench/device.sh`: what it finds of a device, and that it ends in time."""

import dataclasses

import pytest

from bench import cases, device, measure, record

TINY = dataclasses.replace(cases.small_softmax(6, 3), name="tiny")
BROKEN = dataclasses.replace(TINY, name="broken", run={"jaxloss": lambda x, ids: {}[x]})


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(measure, "REPEAT_MS", 0.0)
    monkeypatch.setattr(measure, "STREAM_BYTES", 2**12)


def test_claims_and_times_in_one_document(tmp_path, capsys):
    """Those of two losses, and of two cases of which one does not run: it says so."""
    path = tmp_path / "device.json"
    status = device.run(path, 300, [TINY, BROKEN], ["huber", "squared_error"])
    found = record.read(path)
    assert status == 1
    assert {claim["name"] for claim in found["verify"]["claims"]} == {
        "huber",
        "squared_error",
    }
    assert all(claim["value"]["ulps"] > 0 for claim in found["verify"]["claims"])
    assert found["verify"]["left_out"] == found["left_out"] == []
    assert found["runs"][0]["cases"]["tiny"]["implementations"]["jaxloss"]["ms"]
    printed = capsys.readouterr().out
    assert "2 of 2 claims hold" in printed
    assert "broken, jaxloss: TypeError" in printed


def test_what_there_was_no_time_for_is_named(tmp_path, capsys):
    """Of claims and of cases."""
    path = tmp_path / "device.json"
    assert device.run(path, 0, [TINY], ["huber"]) == 0
    found = record.read(path)
    assert found["verify"]["left_out"] == ["huber"]
    assert found["left_out"] == ["tiny"]
    printed = capsys.readouterr().out
    assert "no time to verify huber" in printed
    assert "no time for tiny" in printed


def test_what_a_cpu_interprets_is_not_timed(tmp_path, capsys):
    """The kernel in Pallas: it says so, and times what stands beside it."""
    run = {name: cases.ONE_READ[0].run[name] for name in ("jaxloss pallas", "optax")}
    case = dataclasses.replace(TINY, name="pair", run=run)
    path = tmp_path / "device.json"
    assert device.run(path, 300, [case], ["squared_error"]) == 0
    found = record.read(path)["runs"][0]["cases"]["pair"]["implementations"]
    assert found["optax"]["ms"]
    assert "ms" not in found["jaxloss pallas"]
    assert (
        "pair, jaxloss pallas: not timed: a CPU interprets" in capsys.readouterr().out
    )


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_every_device_meets_the_kernel_in_pallas(backend):
    """In each dtype where it is timed, beside what XLA makes of the same."""
    of_kernel = [c for c in cases.of_device(backend) if "jaxloss pallas" in c.run]
    assert {c.args[0].dtype for c in of_kernel} >= (
        {"float32"} if backend == "cpu" else {"float32", "bfloat16"}
    )
    assert all("jaxloss xla" in case.run for case in of_kernel)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_cases_have_names_of_their_own(backend):
    """Results are kept by name."""
    names = [case.name for case in cases.of_device(backend)]
    assert len(set(names)) == len(names) > 10
