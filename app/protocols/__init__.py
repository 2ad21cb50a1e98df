"""The protocols the node speaks. Each is sans-IO: bytes in, events out; replies in, bytes out."""
