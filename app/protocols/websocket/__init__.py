"""WebSocket (RFC 6455): the opening handshake, frames, and sessions of live audio."""
