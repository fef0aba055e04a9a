"""What the tests share. Tests import from here, and never from each other.

template    the template's paths and questions; `files`, `check_tree`, `copy_template`
commands    what people type: `cookiecutter`, `cruft`, `git`, `make`; `run` in a site; `edit` a file
pythons     `find_pythons`; `site_environment`, a site's virtual environment, made once
processes   `Process`, `free_port`, `wait_for`, `answers`, `find_program`, `cannot_run`
servers     new `Postgres` and `Redis` servers on free ports; `execute` SQL
http        `Visitor`, the one HTTP client
procfile    `read_procfile`; `production`, its environment
browser     what people do in Chromium; fixtures `chromium`, `live_site`, `page`
heroku      an imitation of Heroku; fixtures `slug`, `app`, `dynos`, `browser`
scheduling  which tests may run at the same time, and what a run prints about itself
stack       `Stack`, the Procfile's processes, kept alive, and its `Visitors`; fixture `stacks`
orders      an app whose tasks record how often they took effect
faults      `FAULTS`, and the `Outcome` of one: what became of everything that was asked for
mail        `MailServer`, which keeps the mail that it gets
million     SQL that fills the table of tokens
recipes     the diffs of docs/recipes.md: `RECIPES`, `apply`, `put_in`; `upload` a picture
docker      `docker`; `Project`, a site in Compose; fixtures `engine`, `project`
production  `Production`, a site behind Caddy in Docker; fixture `production`

Other fixtures are in conftest.py. `bake(**answers)` is pytest-cookies' `cookies`, but raises the
bake's error; `bake_session` is its `cookies_session`. `site` is baked for each `variant` of Django.
"""

from pathlib import Path

import pytest

modules = (path.stem for path in Path(__file__).parent.glob("*.py"))
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in modules))
