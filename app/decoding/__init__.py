"""From one window of speech to its text. Worker thread."""
