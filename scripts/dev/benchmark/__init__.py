"""Measures the node beside its peers: `bench` for time and `accuracy` for words.

Every engine runs in a process of its own and all of them are asked about the same clip one after
the other before the next clip's turn comes, so whatever else the machine does, it does to all; what
is reported is therefore the ratio, clip by clip. The node is measured through its socket, as its
users meet it. Both scripts run in `.venv-bench`, which `environment.py` makes; the node itself
runs in `.venv`.
"""
