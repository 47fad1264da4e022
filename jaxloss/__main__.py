"""`python -m jaxloss`, and the command `jaxloss`."""

import io
import os
import sys

from jaxloss.app import cli


def main() -> int:
    """Runs the command line and returns its exit status, whatever becomes of stdout."""
    # A terminal that lacks a sign such as ± shows another in its place.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        status = cli.main()
    except BrokenPipeError:
        status = 141  # its reader has seen enough, such as `head`
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            # What could not be written is still there; Python would say so at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


if __name__ == "__main__":
    sys.exit(main())
