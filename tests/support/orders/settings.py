"""The site's settings, with this app."""

from config.settings import *

INSTALLED_APPS += ["orders"]
ROOT_URLCONF = "orders.urls"
