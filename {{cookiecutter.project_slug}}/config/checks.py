"""System checks: production never runs on the defaults of development."""

from django.conf import settings
from django.core.checks import Error, register

from config.settings import env

# Variable -> how to set it on Heroku.
REQUIRED = {
    "SECRET_KEY": 'heroku config:set SECRET_KEY="$(openssl rand -hex 32)"',
    "DATABASE_URL": "heroku addons:create heroku-postgresql:essential-0",
    "REDIS_URL": "heroku addons:create heroku-redis:mini",
}


@register
def check_environment(**kwargs):
    """Return an error for each variable that production needs and the environment lacks.

    Production is wherever DEBUG is off, and Heroku always.
    """
    errors = []
    if settings.DEBUG and settings.HEROKU:
        errors.append(
            Error("DEBUG is on. Turn it off: heroku config:unset DEBUG", id="config.E001")
        )
    if not settings.DEBUG or settings.HEROKU:
        errors += [
            Error(f"{name} is not set. On Heroku: {command}", id="config.E002")
            for name, command in REQUIRED.items()
            if not env.str(name, "").strip()
        ]
    return errors
