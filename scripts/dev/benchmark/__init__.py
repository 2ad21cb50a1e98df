"""Measures the node beside its peers: `bench` measures time and `accuracy` measures words.

Every engine runs in a separate process. All engines transcribe one clip in turn before the next
clip, so that other load on the machine affects all of them, and the reports give the ratio clip by
clip. The node is measured through its socket, like a client uses it. Both scripts run in
`.venv-bench`, which `environment.py` makes; the node itself runs in `.venv`.
"""
