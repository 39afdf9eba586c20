"""Compares shop and ERP, in counts and money."""
