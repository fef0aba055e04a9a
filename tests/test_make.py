"""The site's make targets, and those of the template that no other module runs."""

import os
import re
import socket
import subprocess

from support.commands import check_walk, edit, interrupt, make, wait_for_start
from support.http import Visitor
from support.processes import wait_for
from support.template import TEMPLATE


def test_dev_has_an_embedded_queue_and_keeps_the_data(developed, tmp_path):
    process, address = make(developed, "dev", tmp_path / "log")
    with process:
        visitor = check_walk(address, process)
        assert "djDebug" in visitor.page()
        interrupt(process)
    with process:
        wait_for_start(address, process)
        assert len(visitor.tokens()) == 2
        interrupt(process)


def token_of_a_new_visitor(address):
    visitor = Visitor(address)
    visitor.generate_in_background()
    (token,) = wait_for(visitor.tokens, 10, what="the token")
    return token


def test_dev_reloads_edited_files(developed, tmp_path):
    process, address = make(developed, "dev", tmp_path / "log")
    with process:
        wait_for_start(address, process)
        template = developed / "tokens/templates/tokens/home.html"
        edit(template, ("Random tokens", "Edited template"))
        wait_for(lambda: "Edited template" in Visitor(address).page())
        tasks = developed / "tokens/tasks.py"
        edit(tasks, ("value=new_value()", "value='f' * 64"))
        # The server does not notice edits made before its first look at the files.
        wait_for(lambda: tasks.touch() or "tasks.py changed" in process.output)
        wait_for(lambda: token_of_a_new_visitor(address) == "f" * 64, 60)
        interrupt(process)


def test_dev_starts_web_worker_and_clock_with_real_servers(developed, tmp_path, postgres, redis):
    process, address = make(
        developed, "dev", tmp_path / "log", DATABASE_URL=postgres.url(), REDIS_URL=redis.url
    )
    with process:
        check_walk(address, process)
        for name in ("web", "worker", "clock"):
            assert re.search(rf"{name}\.1 ", process.output)
        interrupt(process)


def test_a_busy_port_gives_one_clear_line(developed):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = subprocess.run(
            ["make", "dev"],
            cwd=developed,
            env=os.environ | {"PORT": str(port)},
            capture_output=True,
            text=True,
        )
    assert done.returncode != 0
    assert f"Port {port} is busy: choose another, for example PORT={port + 1}." in done.stderr


def test_make_lists_its_targets(developed):
    for folder in (TEMPLATE, developed):
        output = subprocess.run(["make"], cwd=folder, capture_output=True, text=True).stdout
        targets = re.findall(r"^([a-z-]+) +\S", output, re.M)
        assert "test" in targets
        makefile = (folder / "Makefile").read_text()
        listed = set(re.findall(r"^\.PHONY: ([a-z-]+)", makefile, re.M)) - {"help", "servers"}
        assert listed == set(targets)


def test_a_missing_env_file_is_written_with_a_new_key(developed):
    old = (developed / ".env").read_text()
    (developed / ".env").unlink()
    subprocess.run(["make", ".env"], cwd=developed, check=True)
    new = (developed / ".env").read_text()
    assert (developed / ".env").stat().st_mode & 0o777 == 0o600
    assert re.search(r"^SECRET_KEY=[0-9a-f]{64}$", new, re.M)
    assert [line.partition("=")[0] for line in new.splitlines()] == [
        line.partition("=")[0] for line in old.splitlines()
    ]
    assert new != old
