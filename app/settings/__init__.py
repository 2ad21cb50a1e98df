"""The options: their table, their value types, and the frozen settings."""
