"""What `sink` does besides `run`, one file per command, each with what it prints."""
