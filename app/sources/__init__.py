"""Where requests come from besides sockets. Loop thread."""
