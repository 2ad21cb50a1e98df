"""Decoding of one window of speech into a hypothesis. Worker thread."""
