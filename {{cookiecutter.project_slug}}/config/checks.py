"""System checks: production must not run on development's defaults."""

from django.conf import settings
from django.core.checks import Error, register

from config.environment import env

# Each variable, and how to set it on Heroku.
REQUIRED = {
    "SECRET_KEY": 'heroku config:set SECRET_KEY="$(openssl rand -hex 32)"',
    "DATABASE_URL": "heroku addons:create heroku-postgresql:essential-0",
    "REDIS_URL": "heroku addons:create heroku-redis:mini",
}
# Needed if the site sends mail.
REQUIRED_FOR_MAIL = {
    "EMAIL_URL": "heroku config:set EMAIL_URL=smtp+tls://user:password@host:587",
    "DEFAULT_FROM_EMAIL": "heroku config:set DEFAULT_FROM_EMAIL=site@example.org",
}


@register
def check_environment(**kwargs):
    """Return an error for each variable that production needs but the environment lacks.

    Production means that DEBUG is off, or that this is Heroku.
    """
    errors = []
    if settings.DEBUG and settings.HEROKU:
        errors.append(Error("DEBUG is on: heroku config:unset DEBUG", id="config.E001"))
    if not settings.DEBUG or settings.HEROKU:
        mails = env.str("ADMINS", "") or env.str("EMAIL_URL", "")
        errors += [
            Error(f"{name} is {value or 'not set'}. On Heroku: {command}", id="config.E002")
            for name, command in (REQUIRED | (REQUIRED_FOR_MAIL if mails else {})).items()
            if (value := env.str(name, "").strip()) in {"", "console:"}  # mail for development
        ]
        if not settings.ALLOWED_HOSTS:
            errors.append(Error("ALLOWED_HOSTS is not set: your domains", id="config.E002"))
    return errors
