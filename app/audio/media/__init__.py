"""Recordings of phones and browsers, decoded by FFmpeg in a confined child process."""
