"""Every claim made of every loss: one `LossSpec` per loss and setting.

A module here has the place of the module of `jaxloss.losses` it describes and a list
`SPECS`; a new module is found by being here.
"""

import dataclasses
import importlib
import pkgutil

import jaxloss
from jaxloss.testing import LossSpec

SPECS: list[LossSpec] = []
for module in sorted(m.name for m in pkgutil.walk_packages(__path__, f"{__name__}.")):
    SPECS += getattr(importlib.import_module(module), "SPECS", [])
# All losses are compiled by themselves; a few specs have a function around one.
SPECS = [
    dataclasses.replace(spec, kernel=True)
    if type(spec) is LossSpec and spec.fn in vars(jaxloss).values()
    else spec
    for spec in SPECS
]
