"""Snapshots: the initial one, a copy of the tables that fits the stream exactly, and those on demand."""
