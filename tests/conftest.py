"""Fixtures for all tests. Real servers are in the `fix_*` files, one per dependency."""

from hypothesis import HealthCheck, settings

# No deadline: a slow example says nothing about our code, since the machine may be busy.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

pytest_plugins = [
    "tests.fix_postgres",
    "tests.fix_kafka",
    "tests.fix_oscar",
    "tests.fix_erp",
    "tests.fix_ops",
    "tests.fix_capture",
    "tests.fix_connect",
    "tests.fix_tryton",
]
