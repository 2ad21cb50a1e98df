"""`scripts/queue`: sets up a queue on NATS JetStream, submits audio to it, and fetches results.

`cli.py` reads the command line and `broker.py` is the connection. Each command has a module of its
own: `setup.py` (init, with `orphans.py`), `submit.py`, `results.py` (result, and waiting),
`status.py`, `dead.py`, `key.py`. The names, jobs and limits are those of the node (`app/queue`).
"""
