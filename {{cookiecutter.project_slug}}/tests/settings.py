"""Settings for the tests: those of production, on SQLite and a Redis in this process.

With DATABASE_URL or REDIS_URL set, on these: a database of the tests' own there, and Redis
database 15, so that neither touches what development has.
"""

import os
from urllib.parse import urlsplit

os.environ["DEBUG"] = "false"
os.environ["HTTPS"] = "false"
os.environ["SECRET_KEY"] = "tests " * 10

from config.settings import *  # noqa: F403  (a settings file builds on another so)
from config.settings import CACHES, REDIS_URL, STORAGES

if REDIS_URL:
    CACHES["default"]["LOCATION"] = urlsplit(REDIS_URL)._replace(path="/15").geturl()
else:
    from config.embedded import CACHE_OPTIONS

    CACHES["default"]["OPTIONS"] |= CACHE_OPTIONS

# No manifest: Heroku CI, for one, collects no static files. tests/test_production.py does.
PRODUCTION_STORAGES = STORAGES.copy()
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
WHITENOISE_AUTOREFRESH = True
# Fast, and of no use to anybody.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
