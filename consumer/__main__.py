"""`python -m consumer`."""

import sys

from infra.life import exit_with_parent

if __name__ == "__mp_main__":
    # vLLM starts its engine with `spawn`, which imports this module in the child. An engine must not outlive a consumer
    # that was killed: it would hold the GPU's memory for ever.
    exit_with_parent()

if __name__ == "__main__":
    from consumer.main import main

    sys.exit(main())
