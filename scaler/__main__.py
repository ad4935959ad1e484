"""`python -m scaler dispatcher|scaler`."""

import sys

from scaler.main import main

if __name__ == "__main__":
    sys.exit(main())
