"""`scripts/dev/queue_bench`: figures of a cluster on a queue. Broker and nodes are real processes;
the nodes' engine is a stand-in that sleeps (`tests/helpers/fake_node.py`).

`cluster.py` runs broker, nodes and a client. `latency.py`, `scaling.py`, `memory.py` and
`recovery.py` measure one thing each and return rows of a table; `cli.py` prints them.
"""
