"""A request's way through the node, from header to outcome: admission and intake, acceptance,
dispatch to the worker, outcomes; and what ends it all, shutdown. `app/server.py` puts it together.
Loop thread.
"""
