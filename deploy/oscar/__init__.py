"""A shop that ordertap's authors did not write: django-oscar from PyPI, driven by its own code."""
