"""Outcomes on stdout: the format of a line, and writing it."""
