"""node-whisper: a transcription worker node for the edge.

Start with ``app/__main__.py``, which builds the parts, then ``app/server.py``, which is where a
request is admitted and its outcome routed. The files beside them are the node's main parts; each
folder holds the smaller ones of which a part is made, and its ``__init__.py`` says which.
``docs/protocol.md`` says what is on the wire.
"""

__version__ = "0.1.0"
