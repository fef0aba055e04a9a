"""Write .env with a fresh SECRET_KEY, make the Git repository, say what to do next."""

import json
import os
import secrets
import subprocess
import sys

ANSWERS = json.loads(r'''{{ cookiecutter | tojson }}''')  # fmt: skip

# Set when a Git hook bakes a site; they would send these commands to that hook's repository.
OTHER_REPOSITORY = {"GIT_COMMON_DIR", "GIT_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"}
OTHER_REPOSITORY |= {"GIT_NAMESPACE", "GIT_PREFIX", "GIT_WORK_TREE"}


def write_env():
    """Write .env from .env.example, readable by its owner only.

    The key is 64 hexadecimal digits (256 random bits): nothing to quote in a shell, in Compose's
    env file or for `heroku config:set`. It is made here, not in an answer, because Cookiecutter
    keeps the answers for a replay.
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
    """Run git here, whatever repository the environment points at; raise if it fails."""
    environment = {k: v for k, v in os.environ.items() if k not in OTHER_REPOSITORY}
    subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, env=environment)


def create_git_repo():
    """Make a repository with a first commit; where that cannot be, return what to do instead."""
    try:
        # Hooks of a template and ignore files are for other repositories: one might ignore
        # .python-version. Who signs or checks every commit wants this one too.
        git("-c", "init.defaultBranch=main", "init", "--quiet", "--template=")
        git("-c", "core.excludesFile=", "add", "--all")
        git("commit", "--quiet", "--message", "Start from cookiecutter-django-docker-heroku")
    except OSError:
        return "Git is not installed, so there is no repository yet: install it, then git init."
    except subprocess.CalledProcessError as error:
        reason = " ".join((error.stderr or error.stdout or "no reason given").split())
        return (
            f"Git made no first commit ({reason}). Put that right, then: "
            "git -c core.excludesFile= add --all && git commit"
        )
    return None


def main():
    # A console may lack a letter of the folder's name; that should not cost the site.
    sys.stdout.reconfigure(errors="backslashreplace")
    write_env()
    trouble = create_git_repo() if ANSWERS["create_git_repo"] else None
    if trouble:
        print(trouble, file=sys.stderr)
    print(
        f"\nYour site is in {os.getcwd()}. Next:\n\n"
        f"  cd {ANSWERS['project_slug']}\n"
        "  docker compose up --build    # with Docker, or\n"
        "  make dev                     # without\n\n"
        "Then open http://localhost:8000; README.md explains the rest."
    )


if __name__ == "__main__":
    main()
