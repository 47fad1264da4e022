#!/usr/bin/env bash
# All claims, and the time of the cases, on the accelerator that JAX finds here (or on
# the CPU, if there is none), in at most eight minutes:
#
#     bench/device.sh [--out FILE]
#
# Writes bench/results/<device>.json; `python -m bench report FILE` makes its tables.
# It needs `pip install -e '.[verify]'`, with JAX for the accelerator, and no network.
set -euo pipefail
cd "$(dirname "$0")/.."
exec timeout --kill-after=5 480 "${PYTHON:-python}" -m bench device "$@"
