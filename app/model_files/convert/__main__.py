"""`python -m app.model_files.convert`: the converter, which the node runs as a child process."""

import sys

from app.model_files.convert.cli import main

if __name__ == "__main__":
    sys.exit(main())
