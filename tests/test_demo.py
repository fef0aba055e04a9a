"""`make demo`, as a newcomer runs it."""

import shutil

import pytest
from support.commands import check_walk, interrupt, make, wait_for_start
from support.processes import cannot_run
from support.pythons import find_pythons
from support.template import copy_template


@pytest.mark.slow
def test_demo_works_on_a_fresh_clone_with_an_empty_home(tmp_path):
    clone = copy_template(tmp_path / "a clone")
    home = tmp_path / "home"
    home.mkdir()
    process, address = make(clone, "demo", tmp_path / "log", HOME=str(home))
    with process:
        visitor = check_walk(address, process)
        interrupt(process)
    with process:
        wait_for_start(address, process)
        assert len(visitor.tokens()) == 2
        interrupt(process)


PROGRAMS = """
cat chmod cmp cp dirname env expand find git grep head id ls make mkdir mv
od rm sed sh touch tr uname
"""


@pytest.mark.slow
def test_demo_bakes_the_lts_with_an_older_python(tmp_path):
    """With only Python 3.11 on PATH, and a .python-version that pyenv cannot satisfy."""
    pythons = find_pythons()
    if (3, 11) not in pythons:
        cannot_run("no Python 3.11 was found")
    clone = copy_template(tmp_path / "clone")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS.split():
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    (programs / "python3").symlink_to(pythons[3, 11])
    process, address = make(
        clone, "demo", tmp_path / "log", PATH=str(programs), PYENV_ROOT=str(tmp_path)
    )
    with process:
        check_walk(address, process)
        interrupt(process)
    assert "rendering with Django 5.2 LTS" in process.output
