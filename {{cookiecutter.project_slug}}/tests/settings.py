"""Settings for the tests: production's, on SQLite and a Redis in this process.

With DATABASE_URL or REDIS_URL, the tests use those servers. They use a database of their own and
Redis database 15, so development's data is safe.
"""

import os
from urllib.parse import urlsplit

os.environ["DEBUG"] = "false"
os.environ["HTTPS"] = "false"
os.environ["SECRET_KEY"] = "tests " * 10
# What `.env` says for development would change what the tests see.
os.environ |= {"ADMINS": "", "ALLOWED_HOSTS": "", "DEFAULT_FROM_EMAIL": "root@localhost"}
os.environ |= {"EMAIL_URL": "", "FORWARDED_ALLOW_IPS": "127.0.0.1,::1", "LOG_LEVEL": "INFO"}
os.environ["no_proxy"] = "*"  # the tests ask only this machine

from config.settings import *  # noqa: F403  (this is how settings extend others)
from config.settings import CACHES, REDIS_URL, STORAGES

if REDIS_URL:
    CACHES["default"]["LOCATION"] = urlsplit(REDIS_URL)._replace(path="/15").geturl()
else:
    from fakeredis import FakeRedisConnection, FakeServer

    CACHES["default"]["OPTIONS"].update(connection_class=FakeRedisConnection, server=FakeServer())

# No manifest, because Heroku CI collects no static files. tests/test_production.py does.
PRODUCTION_STORAGES = STORAGES.copy()
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
WHITENOISE_AUTOREFRESH = True
# Fast, but insecure.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Nothing is enqueued when a minute passes during a test.
SCHEDULE = {}
