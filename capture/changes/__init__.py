"""From the log's messages to the records of changes."""
