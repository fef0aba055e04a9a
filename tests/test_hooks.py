"""What the hooks refuse, write and print, on the command line."""

import os
import subprocess
import sys

from support.commands import cookiecutter, edit
from support.template import FILES, files


def test_a_folder_with_files_is_refused_even_when_overwriting(tmp_path):
    mine = tmp_path / "my_site" / "README.md"
    mine.parent.mkdir()
    mine.write_text("mine")
    for arguments in ([], ["--overwrite-if-exists"], ["-f", "--skip-if-file-exists"]):
        done = cookiecutter(tmp_path, "--no-input", *arguments)
        assert done.returncode != 0
        assert "my_site" in done.stdout + done.stderr
        assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]
    assert "is not empty: nothing was written. To update a site, see 'Updating'" in done.stderr


def test_the_next_steps_are_printed(tmp_path):
    done = cookiecutter(tmp_path, "--no-input")
    assert done.stderr == ""
    assert "cd my_site" in done.stdout
    assert "make dev" in done.stdout
    assert len(done.stdout.strip().splitlines()) < 10


def test_without_git_the_site_is_made_and_a_line_says_so(tmp_path):
    path = tmp_path / "bin"
    path.mkdir()
    (path / "python3").symlink_to(sys.executable)
    done = cookiecutter(tmp_path, "--no-input", env=os.environ | {"PATH": str(path)})
    assert done.returncode == 0
    assert "Git is not installed" in done.stderr
    assert (tmp_path / "my_site" / ".env").exists()


def test_without_a_git_identity_the_site_is_made_and_a_line_says_so(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    done = cookiecutter(tmp_path, "--no-input", env=environment)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("Git made no first commit (")
    assert (tmp_path / "my_site" / ".git").exists()


def test_a_bake_inside_a_git_hook_uses_the_sites_own_repository(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=other, check=True)
    environment = {"GIT_DIR": str(other / ".git"), "GIT_INDEX_FILE": str(other / ".git/index")}
    done = cookiecutter(tmp_path, "--no-input", env=os.environ | environment)
    assert done.stderr == ""
    assert (tmp_path / "my_site" / ".git").exists()
    assert not (other / ".git" / "index").exists()


def test_a_failing_hook_leaves_nothing_behind(repository, tmp_path):
    hook = repository / "hooks/post_gen_project.py"
    edit(hook, ("def main():\n", "def main():\n    sys.exit('The disk is full.')\n"))
    folder = tmp_path / "sites"
    folder.mkdir()
    done = cookiecutter(folder, "--no-input", template=repository)
    assert done.returncode != 0
    assert "The disk is full." in done.stderr
    assert list(folder.iterdir()) == []


def test_an_unwritable_target_is_named(tmp_path):
    folder = tmp_path / "sites"
    folder.touch()  # a file: even root cannot make a folder in it
    done = cookiecutter(folder, "--no-input")
    assert done.returncode != 0
    assert str(folder / "my_site") in done.stdout + done.stderr
    assert folder.read_bytes() == b""
    if os.getuid() != 0:
        folder.unlink()
        folder.mkdir(mode=0o500)
        done = cookiecutter(folder, "--no-input")
        assert done.returncode != 0
        assert str(folder / "my_site") in done.stdout + done.stderr
        assert list(folder.iterdir()) == []


def test_an_existing_empty_folder_is_filled_or_left_empty(tmp_path):
    folder = tmp_path / "my_site"
    folder.mkdir()
    for arguments in ([], ["-f", "description= "]):
        done = cookiecutter(tmp_path, "--no-input", *arguments)
        assert done.returncode != 0
        assert list(tmp_path.rglob("*")) == [folder]
    done = cookiecutter(tmp_path, "--no-input", "-f")
    assert done.returncode == 0, done.stderr
    assert files(folder) == FILES
