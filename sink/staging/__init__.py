"""Keeps the copy: the shop's rows in the middle layer, always as of a whole commit."""
