"""The shop's rows in the middle layer, as of whole commits."""
