"""`python -m consumer`."""

import sys

from consumer.main import main

# vLLM starts its engine with `spawn`, which may import this module again.
if __name__ == "__main__":
    sys.exit(main())
