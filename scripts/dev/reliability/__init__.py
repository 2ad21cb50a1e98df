"""The long runs behind docs/reliability.md: fuzzing, soaking, killing. Not part of the node.

Each program has a short form among the tests; these run for any length of time.
"""
