"""node-whisper: a transcription worker node for the edge.

Start with `app/__main__.py` and `app/build.py`, which make the parts and connect them. Each folder
is a layer, and its `__init__.py` says which; docs/architecture.md follows a request through them.
"""

__version__ = "0.2.0.dev0"
