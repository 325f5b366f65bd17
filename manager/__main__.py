"""`python -m manager`."""

import sys

from manager.main import main

if __name__ == "__main__":
    sys.exit(main())
