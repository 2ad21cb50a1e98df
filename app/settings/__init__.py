"""The options: their table, their types, the frozen settings."""
