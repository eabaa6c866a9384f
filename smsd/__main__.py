"""`python -m smsd` is `smsd`."""

import sys

from smsd.cli import main

if __name__ == "__main__":
    sys.exit(main())
