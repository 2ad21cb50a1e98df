"""From a body's bytes to windows of speech: sniff, repair, decode, detect, cut. Worker thread."""
