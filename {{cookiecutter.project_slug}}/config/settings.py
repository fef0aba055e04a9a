"""Settings of the whole site, read from the environment (in development also from `.env`)."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import django
from environs import EnvError, validate

from config.environment import address, env, read_env_file

BASE_DIR = Path(__file__).resolve().parent.parent

# Heroku sets DYNO in every process. Heroku CI does too, but its servers run in the dyno itself,
# without TLS.
DYNO = os.environ.get("DYNO")
HEROKU = bool(DYNO) and "CI" not in os.environ

# --- What the environment says -------------------------------------------------------------

try:
    read_env_file(BASE_DIR / ".env")

    DEBUG = env.bool("DEBUG", False)

    # May be empty during a build; config/checks.py refuses to start without one.
    SECRET_KEY = env.str("SECRET_KEY", "")
    # To change the key, move the old one here, and remove it a month later.
    SECRET_KEY_FALLBACKS = env.items("SECRET_KEY_FALLBACKS", "")

    ALLOWED_HOSTS = env.hosts("ALLOWED_HOSTS", "")
    CSRF_TRUSTED_ORIGINS = env.origins("CSRF_TRUSTED_ORIGINS", "")
    # Redirect to HTTPS, send HSTS, use secure cookies.
    HTTPS = env.bool("HTTPS", not DEBUG)
    # How long browsers insist on HTTPS after a visit, and whether for subdomains too.
    SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", 31_536_000, validate=validate.Range(0))
    SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("SECURE_HSTS_INCLUDE_SUBDOMAINS", True)
    SECURE_HSTS_PRELOAD = env.bool("SECURE_HSTS_PRELOAD", False)

    DATABASE = env.database(
        "DATABASE_URL", "", otherwise=f"sqlite:///{quote(str(BASE_DIR / 'db.sqlite3'))}"
    )
    REDIS_URL = env.redis("REDIS_URL", "")

    MAIL = env.mail("EMAIL_URL", "", otherwise="console:" if DEBUG else "smtp://localhost")
    # The sender of all mail. Mail servers refuse senders from domains that are not theirs.
    DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", "root@localhost", validate=address)
    SERVER_EMAIL = DEFAULT_FROM_EMAIL
    # The addresses that errors are mailed to.
    ADMINS = env.addresses("ADMINS", "")

    LOG_LEVEL = env.log_level("LOG_LEVEL", "INFO")

    # For gunicorn.conf.py. config/throttle.py also uses the proxies to find a visitor's address.
    PORT = env.int("PORT", 8000, validate=validate.Range(1, 65535))
    WEB_CONCURRENCY = env.int("WEB_CONCURRENCY", 2, validate=validate.Range(1, 1000))
    DRAIN_SECONDS = env.int("DRAIN_SECONDS", 0, validate=validate.Range(0, 600))
    # Only Heroku's router can reach a dyno, and its address is not known in advance.
    FORWARDED_ALLOW_IPS = env.networks("FORWARDED_ALLOW_IPS", "*" if DYNO else "127.0.0.1,::1")
except (EnvError, OSError, ValueError) as error:
    sys.exit(f"The environment is wrong: {error}")

if DEBUG and not find_spec("debug_toolbar"):
    sys.exit(
        "DEBUG needs requirements-dev.txt. In production, turn it off: heroku config:unset DEBUG"
    )

if HEROKU:
    # The router only passes on requests for the app's own host names.
    ALLOWED_HOSTS.append(".herokuapp.com")

# --- The site --------------------------------------------------------------------------------

# Your apps come first: their templates and static files override those of the apps below.
INSTALLED_APPS = [
    "tokens",
    "jobs",
    "users",
    "config",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_htmx",
    "django_rq",
]

MIDDLEWARE = [
    "config.middleware.HealthMiddleware",
    "config.middleware.RequestIDMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "config.middleware.StaticFilesMiddleware",
    "config.middleware.BodyLimitMiddleware",
    "config.compat.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# In a cookie, because a session would need a row in the database.
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

# --- Database --------------------------------------------------------------------------------

DATABASES = {"default": DATABASE}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if DATABASE["ENGINE"] == "django.db.backends.sqlite3":
    # Web, worker and clock write to one file. With WAL readers never wait, and writers wait at
    # BEGIN instead of failing halfway with "database is locked".
    DATABASE["OPTIONS"] = {
        "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;",
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
    }
else:
    # If the server vanishes, pages answer 503 within seconds, and jobs fail and are retried. By
    # default, a query on an open connection would wait for 15 minutes. Options after a `?` in
    # DATABASE_URL override these.
    DATABASE["OPTIONS"] = {
        "connect_timeout": 3,
        "gssencmode": "disable",  # trying Kerberos first takes a fifth of the time to connect
        "tcp_user_timeout": 5000,  # milliseconds until sent data must be acknowledged
        "keepalives_idle": 5,  # seconds of silence before the first probe
        "keepalives_interval": 1,
        "keepalives_count": 5,
    } | DATABASE.get("OPTIONS", {})
    # Heroku Postgres requires TLS.
    if HEROKU:
        DATABASE["OPTIONS"].setdefault("sslmode", "require")

# --- Redis: cache and queue ------------------------------------------------------------------

# JSON everywhere: with pickle, anyone who can write to Redis could run code here.
CACHES = {
    "default": {
        "BACKEND": "config.cache.RedisCache",
        "LOCATION": REDIS_URL or "redis://localhost:6379/0",
        "OPTIONS": {
            "serializer": "rq.serializers.JSONSerializer",
            # So that visitors do not wait for a dead Redis. RQ's workers use longer timeouts.
            "socket_connect_timeout": 1,
            "socket_timeout": 1,
        },
    }
}

if HEROKU and REDIS_URL.startswith("rediss://"):
    # Heroku Key-Value Store signs its own certificates on all plans: the connection is encrypted,
    # but the server is not authenticated.
    CACHES["default"]["OPTIONS"]["ssl_cert_reqs"] = None

RQ_QUEUES = {
    "default": {"USE_REDIS_CACHE": "default", "SERIALIZER": "rq.serializers.JSONSerializer"},
}

# --- Jobs: see docs/jobs.md --------------------------------------------------------------------

RQ = {"WORKER_CLASS": "jobs.worker.Worker", "JOB_CLASS": "jobs.worker.Attempt"}
TASKS = {"default": {"BACKEND": "jobs.backend.Backend", "QUEUES": [*RQ_QUEUES]}}

# The most unfinished jobs of a queue. Past that the site answers 503, so no flood fills the disk.
JOBS_MAX_UNFINISHED = 10_000

# The path of each task, and when to enqueue it: a crontab with five fields, in TIME_ZONE.
SCHEDULE = {
    "jobs.tasks.clear_sessions": "0 3 * * *",
    "tokens.tasks.tidy": "* * * * *",
}

# In development without REDIS_URL, `runserver` has Redis and a worker in its own process.
EMBEDDED = DEBUG and not REDIS_URL
if EMBEDDED:
    from fakeredis import FakeRedisConnection, FakeServer  # production has no fakeredis

    # One server for all threads: each thread has its own connection pool.
    CACHES["default"]["OPTIONS"].update(connection_class=FakeRedisConnection, server=FakeServer())

# --- Mail ------------------------------------------------------------------------------------

globals().update(MAIL)  # MAILERS, or EMAIL_HOST and so on before Django 6.1
EMAIL_SUBJECT_PREFIX = f"[{ALLOWED_HOSTS[0] if ALLOWED_HOSTS else 'localhost'}] "
# Before Django 6, each address needs a name.
ADMINS = ADMINS if django.VERSION >= (6, 0) else [("", address) for address in ADMINS]

# --- Static files ----------------------------------------------------------------------------

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
# Files without a hash in their names, half of all files, are never requested.
WHITENOISE_KEEP_ONLY_HASHED_FILES = True
STATIC_MODULE = "django.contrib.staticfiles.storage" if DEBUG else "config.middleware"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": f"{STATIC_MODULE}.StaticFilesStorage"},
}

# --- Requests --------------------------------------------------------------------------------

# Bytes of a request, including files. For uploads, raise this and the limits in deploy/Caddyfile.
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000_000

# --- Security --------------------------------------------------------------------------------

# The environment decides how strict HSTS is.
SILENCED_SYSTEM_CHECKS = ["security.W004", "security.W005", "security.W021"]
if not SECRET_KEY:
    # config/checks.py says more about a missing key than Django's check for weak keys.
    SILENCED_SYSTEM_CHECKS.append("security.W009")

CSRF_FAILURE_VIEW = "config.views.csrf_failure"

AUTH_USER_MODEL = "users.User"
AUTHENTICATION_BACKENDS = ["config.throttle.ThrottledBackend"]
VALIDATORS = ("UserAttributeSimilarity", "MinimumLength", "CommonPassword", "NumericPassword")
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}Validator"} for name in VALIDATORS
]

SECURE_CSP = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "img-src": ["'self'", "data:"],
    "connect-src": ["'self'"],
    "form-action": ["'self'"],
    "base-uri": ["'none'"],
    "frame-ancestors": ["'none'"],
}
CONTENT_SECURITY_POLICY = {"DIRECTIVES": SECURE_CSP}  # for django-csp, before Django 6

# gunicorn decides whether a request came over HTTPS: it trusts X-Forwarded-Proto only from
# FORWARDED_ALLOW_IPS. SECURE_PROXY_SSL_HEADER would trust it from everybody.
if HTTPS:
    SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    # The prefix makes browsers refuse these cookies from a subdomain or without HTTPS.
    SESSION_COOKIE_NAME = "__Host-sessionid"
    CSRF_COOKIE_NAME = "__Host-csrftoken"
else:
    SECURE_HSTS_SECONDS = 0

# --- Logging ---------------------------------------------------------------------------------

# One line for each record on standard error, with the id of the request that caused it.
LINE = {"filters": ["request_id"], "formatter": "line"}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "config.middleware.RequestIDFilter"}},
    "formatters": {
        "line": {
            "class": "config.mail.Formatter",
            "format": "{asctime}\t{levelname}\t{name}\trequest_id={request_id} {message}",
            "style": "{",
        }
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler"} | LINE,
        "mail_admins": {"class": "jobs.mail.AdminEmailHandler", "level": "ERROR"} | LINE,
    },
    "root": {"handlers": ["console", "mail_admins"], "level": LOG_LEVEL},
    # Django's own handlers would be silent in production, or write every line twice.
    "loggers": {
        "django": {"handlers": [], "level": LOG_LEVEL},
        # Bots ask for wrong hosts and send too many fields; nobody wants mail about that.
        "django.security": {"handlers": ["console"], "propagate": False},
    },
}

# --- Development -----------------------------------------------------------------------------

if DEBUG:
    INSTALLED_APPS.append("debug_toolbar")
    MIDDLEWARE.insert(2, "debug_toolbar.middleware.DebugToolbarMiddleware")
    # Not INTERNAL_IPS: in Docker, requests come from a gateway whose address is not known in
    # advance. Collapsed, because an open toolbar covers the buttons.
    DEBUG_TOOLBAR_CONFIG = {"SHOW_COLLAPSED": True, "SHOW_TOOLBAR_CALLBACK": lambda request: True}
