"""`python -m megavox`, which torchrun needs."""

import sys

from megavox.cli import main

if __name__ == "__main__":
    sys.exit(main())
