"""Sockets: the event loop, listeners, connections, TLS, tokens, timeouts. Loop thread."""
