"""`python -m jaxloss`."""

import io
import sys

from jaxloss import cli

if __name__ == "__main__":
    # A terminal that lacks a sign such as ± shows another in its place.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    sys.exit(cli.main())
