"""`python -m producer.gateway`."""

import sys

from producer.gateway.main import main

sys.exit(main())
