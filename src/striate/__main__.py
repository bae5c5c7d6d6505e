"""The command: `striate`, or `python -m striate`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    # Threads that wait for each other sleep instead of spinning. It must be said before torch is imported, and is a
    # setting of this process alone. Beside one busy program, training is some fifteen times as quick (docs/numbers.md,
    # "A busy neighbour").
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from striate.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
