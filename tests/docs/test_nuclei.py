"""The example of the recipes for masks."""

import pytest

from tests.docs.test_guides import example
from tests.losses import wheels


def test_nuclei_are_found(tmp_path):
    """By each sum of losses; and Lovász alone is another loss than Dice.

    In full, each mean IoU is above 0.8, but for a start of Lovász alone that fails; an
    untrained network, or all of the image, has less than 0.3.
    """
    pytest.importorskip("skimage")
    wheels.file("stardist", "data/images/img2d.tif")
    made = example("nuclei", tmp_path / "nuclei.py", SEEDS=(6, 1), STEPS=(150, 60))
    found = made["found"]
    assert [*found] == [*made["METHODS"]]
    assert len({float(iou) for (iou,) in found.values()}) == 5
    for name in ("cross entropy", "cross entropy + Dice", "cross entropy + Lovász"):
        assert 0.6 < found[name][0] < 1
    everything = made["truth"].mean(axis=made["PIXELS"]).mean()
    assert everything < 0.3
