"""What is claimed of every loss: one `Claim` per function.

A module here has the place of the module of `jaxloss` it describes and a list `CLAIMS`;
a new module is found by being here.
"""

import dataclasses
import importlib
import pkgutil

import jaxloss
from jaxloss.testing.claim import Claim
from jaxloss.testing.spec import LossSpec

CLAIMS: list[Claim] = []
SPECS: list[LossSpec] = []
for module in sorted(m.name for m in pkgutil.walk_packages(__path__, f"{__name__}.")):
    CLAIMS += getattr(importlib.import_module(module), "CLAIMS", [])
    SPECS += getattr(importlib.import_module(module), "SPECS", [])
SPECS += [spec for claim in CLAIMS for spec in claim.settings]
# All losses are compiled by themselves; a few specs have a function around one.
SPECS = [
    dataclasses.replace(spec, kernel=True)
    if type(spec) is LossSpec and spec.fn in vars(jaxloss).values()
    else spec
    for spec in SPECS
]
