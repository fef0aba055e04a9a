"""The benchmarks' arithmetic, and how they stop early. No test runs `make bench` itself."""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from support.processes import Process, find_program, wait_for
from support.template import TEMPLATE

sys.path.insert(0, str(TEMPLATE / "benchmarks"))

from run import Row, table, take_turns

RUN = [sys.executable, TEMPLATE / "benchmarks/run.py"]


@pytest.mark.parametrize(
    ("name", "site", "ratio", "met"),
    [
        ("stylesheet, requests/s", [[90, 96], [80, 70]], 0.96, True),
        ("stylesheet, requests/s", [[90, 94], [80, 70]], 0.94, False),
        ("home page with ten tokens, CPU", [[250, 200], [210, 300]], 2.0, True),
        ("home page with ten tokens, CPU", [[250, 202], [210, 300]], 2.02, False),
    ],
)
def test_a_row_compares_the_best_of_both_sides_with_its_goal(name, site, ratio, met):
    better = min if "CPU" in name else max
    row = Row(name, site, [[100, 100], [100, 100]], better)
    assert (row.ratio, row.met) == (ratio, met)
    assert row.range == f"{min(map(better, site)) / 100:.2f} to {max(map(better, site)) / 100:.2f}"


def test_the_results_publish_what_a_reader_learns_and_no_verdict():
    row = Row("stylesheet, requests/s", [[1], [2]], [[4], [4]], max)
    line = table([row]).splitlines()[-1]
    lesson = "a static file, served through the site's middleware"
    assert line == f"| stylesheet, requests/s | 0.50 | 0.25 to 0.50 | {lesson} |"


def test_turns_alternate_their_order_and_are_grouped_by_rounds():
    order = []

    def subject(name):
        order.append(name)
        return len(order)

    a, b = take_turns(lambda: subject("a"), lambda: subject("b"), rounds=2, turns=2)
    assert "".join(order) == "abbaabba"
    assert (a, b) == ([[1, 4], [5, 8]], [[2, 3], [6, 7]])


def test_a_missing_tool_is_named_in_one_line(tmp_path):
    done = subprocess.run(
        RUN, env=os.environ | {"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("The benchmarks cannot run: wrk is not installed")
    assert done.stderr.count("\n") == 1


def commands_in(folder):
    """Return the command lines of the processes that run in the folder, or were told of it."""
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # The servers write their titles over their environment.
            about = os.readlink(process / "cwd") + (process / "environ").read_text(errors="replace")
            if str(folder) in about:
                commands.append((process / "cmdline").read_text())
    return commands


@pytest.mark.slow
def test_an_interrupted_run_leaves_neither_servers_nor_files_behind(tmp_path):
    find_program("wrk")
    # Not in `tmp_path`, where a server of another user could not look for its data.
    folder = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    folder.chmod(0o755)
    command = [*RUN, "--only", "http"]
    environment = os.environ | {"TMPDIR": str(folder)}
    try:
        with Process(command, tmp_path / "log", env=environment) as run:
            wait_for(lambda: "gunicorn" in str(commands_in(folder)), 120, run.log)
            assert "redis-server" in str(commands_in(folder))
            assert run.stop() == 1
        assert run.output.endswith("Interrupted: nothing was written.\n")
        wait_for(lambda: not commands_in(folder), what="every process to end")
        assert list(folder.iterdir()) == []
    finally:
        shutil.rmtree(folder)
