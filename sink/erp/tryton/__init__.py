"""Tryton, reached through its JSON-RPC."""
