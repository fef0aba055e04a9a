"""The site's settings, with this app."""

from config.settings import *  # noqa: F403

INSTALLED_APPS += ["orders"]  # noqa: F405
ROOT_URLCONF = "orders.urls"
