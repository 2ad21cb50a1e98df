"""How one window of speech becomes text. Worker thread."""
