"""Steps that `app/__main__.py` takes before the first connection."""
