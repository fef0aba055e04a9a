"""The WSGI application that gunicorn and runserver serve."""

import os
import sys

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = get_wsgi_application()

# Management commands run the system checks; gunicorn does not.
from config.checks import check_environment  # noqa: E402  (needs the settings)

if errors := check_environment():
    sys.exit("\n".join(error.msg for error in errors))
