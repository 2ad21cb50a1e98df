"""The languages the node speaks on its sockets, each one a sans-IO file: bytes in, events out."""
