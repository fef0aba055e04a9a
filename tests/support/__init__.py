"""What the tests share. A test imports from here and from no other test.

template    the template's paths and questions, `files` and `check_tree` of a site, `copy_template`
commands    what people type: `cookiecutter`, `cruft`, `git`, `make`; `run` in a site; `edit` a file
pythons     `find_pythons`; `site_environment`, a virtual environment for a site, made once
processes   `Process`, `free_port`, `wait_for`, `answers`, `find_program`, `cannot_run`
servers     `Postgres` and `Redis`, fresh ones on a port of their own; `execute` SQL
http        `Visitor`, the one HTTP client
procfile    `read_procfile`, `production`, its environment
browser     what people do in Chromium; fixtures `chromium`, `live_site`, `page`
heroku      Heroku, played here; fixtures `slug`, `app`, `dynos`, `browser`
plan        which tests run beside which, and what a run says of itself
stack       `Stack`, the Procfile's processes, kept alive, and its `Visitors`; fixture `stacks`
orders      an app whose tasks show how often they took effect
faults      `FAULTS`, and the `Outcome` of one: what became of all that was asked for
docker      `docker`; `Project`, a site in Compose; fixtures `engine`, `project`
production  `Production`, a site behind Caddy in Docker; fixture `production`

Fixtures are in conftest.py: `bake(**answers)` is pytest-cookies' `cookies` and raises what the bake
raised, `bake_session` its `cookies_session`; `site` is baked for each `variant` of Django.
Chromium and Docker's networks are in one xdist_group, since they cannot bear each other; what loads
the machine or counts seconds is marked `alone`.
"""

from pathlib import Path

import pytest

modules = (path.stem for path in Path(__file__).parent.glob("*.py"))
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in modules))
