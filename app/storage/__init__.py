"""Everything that writes to disk, on one background thread: request bodies and the journal."""
