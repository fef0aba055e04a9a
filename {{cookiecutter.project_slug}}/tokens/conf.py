"""The settings of this app."""

import sys
from datetime import timedelta

from environs import EnvError, validate

from config.settings import env

# Tokens of one visitor. The page shows all of them, so this limits what it costs too.
LIMIT = 10
PENDING_LIMIT = 5
LIFETIME = timedelta(hours=24)

try:
    # How many times a minute one address may press each button that makes a token.
    RATE = env.int("TOKEN_RATE", 60, validate=validate.Range(1))
    # The simulated work of a background job, whose timeout is 30 seconds.
    WORK_SECONDS = env.float("TOKEN_WORK_SECONDS", 2.0, validate=validate.Range(0, 25))
except (EnvError, OSError, ValueError) as error:
    sys.exit(f"The environment is wrong: {error}")
