"""What is claimed of every loss: one `Claim` per function.

A module here has the place of the module of `jaxloss` it describes and a list `CLAIMS`;
a new module is found by being here.  Importing them evaluates nothing; the formulas
need mpmath (`pip install 'jaxloss[verify]'`) when they are evaluated.
"""

import importlib
import pkgutil

from jaxloss.testing import Claim, LossSpec

CLAIMS: list[Claim] = []
for module in sorted(m.name for m in pkgutil.walk_packages(__path__, f"{__name__}.")):
    CLAIMS += getattr(importlib.import_module(module), "CLAIMS", [])

SPECS: list[LossSpec] = [spec for claim in CLAIMS for spec in claim.settings]
