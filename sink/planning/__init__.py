"""Decides what to do in the ERP. Pure."""
