"""The thread that owns the engine: whose turn it is, and the work on one request."""
