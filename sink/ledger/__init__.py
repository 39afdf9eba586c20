"""The ledger: for each document, what the ERP was given, and why it does not yet have what the shop has."""
