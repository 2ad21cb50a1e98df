"""Outcomes on stdout: the form of a line, and its way to the descriptor."""
