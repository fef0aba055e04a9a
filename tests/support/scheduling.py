"""What a test run prints about itself, and which tests may run at the same time."""

import fcntl
import os
from collections import Counter
from contextlib import contextmanager

from support.docker import engine_answers
from support.processes import locate
from support.pythons import CACHE, SITE_FLOOR, find_pythons, version
from support.servers import POSTGRES_FOLDERS

# On two idle cores.
QUICK, ALL = "5 minutes", "45 minutes"


def missing():
    """Return what this machine lacks, so that tests cannot run."""
    lacks = []
    if not os.environ.get("DOCKER_ENGINE") and not engine_answers():
        lacks.append("Docker: no engine answers")
    if not (locate("chromium") or locate("google-chrome")):
        lacks.append("the browser: no chromium")
    if not (locate("redis-server") and locate("postgres", *POSTGRES_FOLDERS)):
        lacks.append("the servers: no redis-server or no postgres")
    newest = max(find_pythons())
    lacks += [
        f"Django {django}: no Python {floor} or newer"
        for django, floor in SITE_FLOOR.items()
        if version(floor) > newest
    ]
    return lacks


def announce(slow):
    """Return lines that say what will run, and for about how long."""
    if slow:
        lines = [f"All tests run, about {ALL} on two idle cores."]
    else:
        lines = [f"All but the slow tests run, about {QUICK} on two idle cores; SLOW=1 runs all."]
    return lines + [f"Cannot run here: {lack}" for lack in missing()]


def skipped(reports):
    """Return a line for each reason why tests could not run."""
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    return [f"{count} tests: {reason}" for reason, count in reasons.items()]


@contextmanager
def lane(alone, folder=CACHE):
    """Let in any number of tests, or one that must run alone, across all processes."""
    folder.mkdir(exist_ok=True)
    with (folder / "turn.lock").open("w") as turn, (folder / "room.lock").open("w") as room:
        fcntl.flock(turn, fcntl.LOCK_EX)  # no test enters while one is waiting to be alone
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield
