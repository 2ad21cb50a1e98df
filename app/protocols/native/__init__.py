"""The native protocol: a length, a JSON header, the audio."""
