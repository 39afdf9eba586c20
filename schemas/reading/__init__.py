"""From records to values."""
