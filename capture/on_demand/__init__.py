"""Snapshots on demand, while streaming goes on."""
