"""The benchmarks' arithmetic, and how they end early. `make bench` itself runs in no test."""

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

from run import Row, ratios, take_turns

RUN = [sys.executable, TEMPLATE / "benchmarks/run.py"]


@pytest.mark.parametrize(
    ("goal", "values", "met"),
    [
        ("≤ 1.5", [1.4, 1.5, 9], True),
        ("≤ 1.5", [1.4, 1.6, 1.7], False),
        ("≥ 0.3", [0.1, 0.3, 0.4], True),
        ("≥ 0.3", [0.1, 0.2, 0.9], False),
    ],
)
def test_a_row_meets_its_goal_by_its_median(goal, values, met):
    row = Row("page", "bare Django", goal, values)
    assert row.met == met
    verdict = "yes" if met else "**no**"
    assert str(row) == (
        f"| page | bare Django | {values[1]:.2f} x | {min(values):.2f} to {max(values):.2f} "
        f"| {goal} | {verdict} |"
    )


def test_the_distance_from_a_goal_is_above_one_where_it_is_missed():
    assert Row("page", "", "≤ 2", []).distance(4) == 2
    assert Row("page", "", "≥ 2", []).distance(1) == 2


def test_a_row_without_values_says_why():
    row = Row("image", "", "≤ 1", [], unit="not measured: no Docker engine")
    assert str(row) == "| image | - | not measured: no Docker engine | - | ≤ 1 | - |"


def test_the_order_of_turns_alternates_and_ratios_are_of_the_same_round():
    order = []

    def subject(name, value):
        order.append(name)
        return value

    a, b = take_turns(lambda: subject("a", len(order) + 1), lambda: subject("b", 2), rounds=3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert ratios(a, b) == [0.5, 2, 2.5]


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
    command = [*RUN, "--only", "start"]
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
