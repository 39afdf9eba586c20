"""What `capture` does besides `run`: check, init, drop, status, adopt, repair, signal."""
