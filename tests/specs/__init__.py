"""Every claim made of every loss: one `LossSpec` per loss and setting.

A module here is named after the module of `jaxloss` it describes and has a list
`SPECS`; a new module is found by being here.
"""

import importlib
import pkgutil

from jaxloss.testing import LossSpec

SPECS: list[LossSpec] = []
for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
    SPECS += getattr(importlib.import_module(f"{__name__}.{module}"), "SPECS", [])
