"""The settings of bare Django: what answering a request and asking one table need."""

import os
from urllib.parse import urlsplit

ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "bare"
SECRET_KEY = "bare"

_url = urlsplit(os.environ.get("DATABASE_URL", ""))
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _url.hostname,
        "PORT": _url.port,
        "USER": _url.username,
        "NAME": _url.path[1:],
        "CONN_MAX_AGE": 600,
    }
}
