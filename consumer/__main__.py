"""`python -m consumer`, alone or through a zygote. Imports are late: who stands for a zygote's child needs few."""

import os
import sys


def main() -> int:
    words = sys.argv[1:]
    if "--serve-zygote" in words:
        from consumer import starting  # noqa: PLC0415 - as above

        return starting.serve_zygote(words, os.environ)  # noqa: TID251 - this is a main()
    if "--zygote" in words:
        from consumer import starting  # noqa: PLC0415 - as above

        code = starting.through_zygote(words, os.environ)  # noqa: TID251 - this is a main()
        if code is not None:
            return code
    from consumer.main import main as consume  # noqa: PLC0415 - as above

    return consume()


# vLLM starts its engine with `spawn`, which may import this module again.
if __name__ == "__main__":
    sys.exit(main())
