"""What the verbs do: plain values in, records out. Options and printed lines are in `commands`."""
