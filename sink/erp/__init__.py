"""The ERPs: what one must be able to do, and an adapter for each."""
