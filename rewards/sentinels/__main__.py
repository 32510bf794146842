"""``python -m rewards.sentinels [language ...]``: the table of planted hacks, for the README and for operators."""

import sys
from collections.abc import Sequence

from rewards.sentinels.cases import load_cases
from rewards.sentinels.table import as_markdown, default_panel, rows


def main(languages: Sequence[str]) -> None:
    """Print the table; all languages without a choice."""
    cases = [case for case in load_cases() if not languages or case.language in languages]
    if not cases:
        known = ", ".join(case.language for case in load_cases())
        sys.exit(f"languages must be some of {known}, got {' '.join(languages)}")
    table = rows(default_panel(cases), cases)
    margins = [row.margin for row in table if row.margin is not None]
    sys.stdout.write(f"{as_markdown(table)}\n\n{len(table)} trials, smallest margin {min(margins):.2f}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
