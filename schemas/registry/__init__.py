"""Schema ids: the registry they come from, and the bytes that carry them."""
