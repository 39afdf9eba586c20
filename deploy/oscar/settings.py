"""Django settings of the oscar shop: oscar's apps, and the database of $OSCAR_DATABASE_URL."""

import os

from oscar import INSTALLED_APPS as OSCAR_APPS
from oscar.defaults import *  # noqa: F403  (oscar's own way to give its many defaults)

from deploy.oscar.connection import address

_url = os.environ.get("OSCAR_DATABASE_URL", "postgresql://localhost/oscar")
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", **address(_url)}}
SECRET_KEY = "signs nothing: this shop has no web server"  # noqa: S105
DEBUG = False
USE_TZ = True
SITE_ID = 1
INSTALLED_APPS = OSCAR_APPS
HAYSTACK_CONNECTIONS = {"default": {"ENGINE": "haystack.backends.simple_backend.SimpleEngine"}}
HAYSTACK_SIGNAL_PROCESSOR = "haystack.signals.BaseSignalProcessor"  # no search index
CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # nobody logs in, and this is fast

OSCAR_DEFAULT_CURRENCY = "EUR"
OSCAR_ALLOW_ANON_CHECKOUT = True
OSCAR_OFFERS_INCL_TAX = True  # a consumer shop: "10 % off" means off the price that the buyer sees
OSCAR_INITIAL_ORDER_STATUS = "Pending"
OSCAR_INITIAL_LINE_STATUS = "Pending"
OSCAR_ORDER_STATUS_PIPELINE = {
    "Pending": ("Paid", "Cancelled"),
    "Paid": ("Shipped", "Cancelled"),
    "Shipped": (),
    "Cancelled": (),
}
