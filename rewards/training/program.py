"""Program: carries out one training of a reward model.

    python -m rewards.training.program WORK_FOLDER

Tells of each optimizer step in a line of JSON on its standard output, and of what went wrong on its standard error.
"""

import os
import sys
from pathlib import Path

from agent.errors import ColoqError
from rewards.training.progress import Progress, progress_line
from rewards.training.settings import read_order

NICENESS = 19
"""The lowest priority: whatever else wants the processor has it first."""


def main() -> None:
    """Carry out the order of the work folder that the command line names."""
    os.nice(NICENESS)
    # Libraries print to standard output too: from here on that is standard error.
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def tell(progress: Progress) -> None:
        lines.write(progress_line(progress))

    work = Path(sys.argv[1])
    order = read_order(work)
    # Imported once there is something to do, and at low priority: it takes seconds.
    from rewards.training.carry_out import carry_out

    try:
        carry_out(order, work, tell)
    except ColoqError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
