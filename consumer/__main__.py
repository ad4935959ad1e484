"""`python -m consumer`."""

import sys

from consumer.main import main

# vLLM starts its engine core with `spawn`, which imports this module again.
if __name__ == "__main__":
    sys.exit(main())
