"""Measurements: `./tests/bench NAME`."""
