"""Fixtures for all tests; the real parts are in the `fix_*` files, one per dependency."""

pytest_plugins = [
    "tests.fix_postgres",
    "tests.fix_kafka",
    "tests.fix_oscar",
    "tests.fix_erp",
    "tests.fix_ops",
    "tests.fix_capture",
]
