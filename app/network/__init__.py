"""Sockets: the event loop, listeners, connections, TLS, tokens, deadlines. Loop thread."""
