"""`python -m scaler.schedule test`, which `penstock schedule test` hands over to."""

from __future__ import annotations

import os
import sys

from infra.life import unix_ms
from scaler.schedule import commands
from schemas.errors import PenstockError


def main() -> int:
    environment = os.environ  # noqa: TID251 - this is a main()
    try:
        return commands.main(sys.argv[1:], environment, now_unix_s=unix_ms() / 1000)
    except PenstockError as error:
        sys.stderr.write(f"penstock schedule: {error.message}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
