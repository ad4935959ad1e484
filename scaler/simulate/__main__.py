"""`python -m scaler.simulate`, which `penstock simulate` and `penstock plan` hand over to."""

from __future__ import annotations

import sys

from scaler.simulate import commands
from schemas.errors import ConfigError


def main() -> int:
    name = "plan" if sys.argv[1:2] == ["plan"] else "simulate"
    try:
        return commands.main(sys.argv[1:])
    except ConfigError as error:
        sys.stderr.write(f"penstock {name}: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
