"""`python -m scaler dispatcher`."""

import sys

from scaler.main import main

if __name__ == "__main__":
    sys.exit(main())
