"""Sources of requests other than sockets. Loop thread."""
