"""`python -m jaxloss`."""

import io
import os
import sys

from jaxloss.app import cli

if __name__ == "__main__":
    # A terminal that lacks a sign such as ± shows another in its place.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        status = cli.main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Its reader has seen enough, such as `head`; Python would say so at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    sys.exit(status)
