#!/usr/bin/env python3
"""Turn a trained Whisper model into a ggml file that the node can load: see -h."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for app

from app.model_files.convert.cli import main

if __name__ == "__main__":
    sys.exit(main())
