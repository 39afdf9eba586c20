"""A shop that we did not write: django-oscar from PyPI, driven by its own code."""
