"""`python -m tcbpf`."""

import sys

from tcbpf.cli import main

sys.exit(main())
