"""Connects this process to an oscar shop's database. Import oscar's models only after it."""

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

SETTINGS = "deploy.oscar.settings"


def connect(url: str) -> None:
    """Makes `url` the shop of this process and of this thread's connection. May be called again for another shop."""
    os.environ["OSCAR_DATABASE_URL"] = url
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    import django
    from django.apps import apps

    if not apps.ready:
        django.setup()
    from django.db import connections

    connections.close_all()
    for wrapper in (connections.databases, {"default": connections["default"].settings_dict}):
        wrapper["default"].update(address(url))


def address(url: str) -> dict[str, str]:
    """A PostgreSQL URL as Django settings."""
    parts = urlsplit(url)
    return {
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
    }


def migrate(url: str, say: Callable[[str], None] = print) -> None:
    """Has oscar create its 93 tables in an empty database, which takes 15 to 35 seconds."""
    connect(url)
    from django.core.management import call_command

    say("django-oscar creates its 93 tables, about half a minute")
    call_command("migrate", verbosity=0, skip_checks=True, interactive=False)


def publish() -> None:
    """Creates the publication `ordertap`: the profile's tables without private columns."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute((Path(__file__).parent / "publication.sql").read_text("utf-8"))


def disconnect() -> None:
    """Closes this thread's connection to the shop."""
    from django.db import connections

    connections.close_all()
