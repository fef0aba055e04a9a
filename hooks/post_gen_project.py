"""Write .env with a new SECRET_KEY, create the Git repository, and print the next steps."""

import json
import os
import secrets
import subprocess
import sys

ANSWERS = json.loads(r'''{{ cookiecutter | tojson }}''')  # fmt: skip

# A Git hook that bakes a site sets these: git would use the hook's repository, not the site's.
OTHER_REPOSITORY = {"GIT_COMMON_DIR", "GIT_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"}
OTHER_REPOSITORY |= {"GIT_NAMESPACE", "GIT_PREFIX", "GIT_QUARANTINE_PATH", "GIT_WORK_TREE"}


def write_env():
    """Write .env from .env.example. Only its owner can read it.

    The key is 64 hexadecimal digits (256 random bits), which need no quotes in a shell, in .env or
    for `heroku config:set`. It is not an answer, because Cookiecutter saves answers for a replay.
    """
    values = {"SECRET_KEY": secrets.token_hex(32)}
    if hasattr(os, "getuid"):
        values |= {"UID": os.getuid(), "GID": os.getgid()}
    lines = []
    with open(".env.example", encoding="utf-8") as example:
        for line in example:
            name = line.partition("=")[0]
            lines.append(f"{name}={values[name]}\n" if name in values else line)
    descriptor = os.open(".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8", newline="\n") as env:
        env.writelines(lines)


def git(*arguments):
    """Run git in this folder, whatever repository the environment names; raise if it fails."""
    environment = {k: v for k, v in os.environ.items() if k not in OTHER_REPOSITORY}
    subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, env=environment)


def create_git_repo():
    """Create a repository with a first commit. If that fails, return what to do."""
    try:
        # The owner's Git template, ignore file and attributes are for other repositories: they may
        # ignore .python-version. Signing and global hooks are for every commit, so they stay on.
        git("-c", "init.defaultBranch=main", "init", "--quiet", "--template=")
        git("-c", "core.excludesFile=", "-c", "core.attributesFile=", "add", "--all")
        git("commit", "--quiet", "--message", "Start from cookiecutter-django-docker-heroku")
    except OSError:
        return "Git is not installed, so there is no repository. Install it, then run git init."
    except subprocess.CalledProcessError as error:
        reason = " ".join((error.stderr or error.stdout or "no reason given").split())
        return (
            f"Git made no first commit ({reason}). Fix that, then run: "
            "git -c core.excludesFile= -c core.attributesFile= add --all && git commit"
        )
    return None


def main():
    # The console may be unable to print the folder's name. That is no reason to fail.
    sys.stdout.reconfigure(errors="backslashreplace")
    write_env()
    problem = create_git_repo() if ANSWERS["create_git_repo"] else None
    if problem:
        print(problem, file=sys.stderr)
    print(
        f"\nYour site is in {os.getcwd()}. Next:\n\n"
        f"  cd {ANSWERS['project_slug']}\n"
        "  docker compose up --build    # with Docker, or\n"
        "  make dev                     # without\n\n"
        "Then open http://localhost:8000; README.md explains the rest."
    )


if __name__ == "__main__":
    main()
