"""The initial snapshot: a copy of the tables that fits the stream exactly."""
