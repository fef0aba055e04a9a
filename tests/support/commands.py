"""Commands that people type, and edits that they make."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.http import Visitor
from support.processes import Process, answers, free_port, wait_for
from support.template import TEMPLATE

BIN = Path(sys.executable).parent

# Variables of the make that runs the tests: they change what another make prints.
OF_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")


def cookiecutter(folder, *arguments, command=BIN / "cookiecutter", template=TEMPLATE, **options):
    """Bake into the folder on the command line; return the completed process.

    Only for tests of the command line itself. Others use the fixture `bake`.
    """
    return subprocess.run(
        [command, str(template), "--output-dir", str(folder), *arguments],
        capture_output=True,
        text=True,
        **options,
    )


def cruft(folder, *arguments):
    """Run cruft in the folder; return the completed process."""
    return subprocess.run([BIN / "cruft", *arguments], cwd=folder, capture_output=True, text=True)


def git(folder, *arguments):
    """Run git in the folder; return its output."""
    return subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def commit(repository, message):
    """Commit everything; return the commit's hash."""
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", message)
    return git(repository, "rev-parse", "HEAD").strip()


def edit(path, *replacements):
    """Replace each (old, new) in the file, which must contain the old text."""
    text = path.read_text(encoding="utf-8")
    for old, new in replacements:
        assert old in text, f"{path} has no {old!r}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def run(*command, site, **environment):
    """Run a command in the site; return its output, or fail and show it."""
    environment = {
        k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"
    } | environment
    done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


def make(folder, target, log, **environment):
    """Return a process for a make target that starts a server, not yet started, and its address."""
    environment = os.environ | {"PORT": str(free_port())} | environment
    process = Process(["make", "--no-print-directory", target], log, env=environment, cwd=folder)
    return process, f"http://localhost:{environment['PORT']}"


def interrupt(process):
    """Press Ctrl-C; assert that every process ends."""
    process.send_group(signal.SIGINT)
    process.wait()
    wait_for(lambda: not process.children(), what="every process to end")


def wait_for_start(address, process):
    """Wait until the site answers; fail if its process ends instead."""

    def started():
        assert process.popen.poll() is None, process.output
        return answers(f"{address}/readyz")

    wait_for(started, 400, process.log)


def check_walk(address, process):
    """Assert that a visitor gets tokens; return the visitor."""
    wait_for_start(address, process)
    return Visitor(address).walk()
