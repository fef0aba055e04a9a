"""Refuse bad answers before anything is written: one line each, then a non-zero exit."""

import ast
import json
import keyword
import os
import re
import sys
import unicodedata

# Through JSON in a raw string: an answer is data here, whatever quotes or braces it contains. And
# through repr in the JSON, which keeps apart the two halves of a character that YAML can give.
ANSWERS = r'''{{ cookiecutter.items() | list | string | tojson }}'''  # fmt: skip
ANSWERS = dict(ast.literal_eval(json.loads(ANSWERS)))

# Longest answers, in characters.
MAX_LENGTH = {"project_name": 100, "description": 200, "author_name": 100, "author_email": 254}

# What the site contains or imports under these names, and what Windows cannot have as a folder.
SITE_MODULES = {"config", "manage", "tokens", "tests"}
DEPENDENCIES = {
    "brotli", "click", "coverage", "croniter", "csp", "debug_toolbar", "dj_database_url",
    "django", "django_csp", "django_debug_toolbar", "django_htmx", "django_redis", "django_rq",
    "djlint", "dotenv", "environs", "fakeredis", "gunicorn", "honcho", "marshmallow", "packaging",
    "pip", "psycopg2", "pytest", "pytest_django", "redis", "rq", "ruff", "setuptools", "sqlparse",
    "uv", "watchfiles", "whitenoise",
}  # fmt: skip
WINDOWS_DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]")
TAKEN = SITE_MODULES | DEPENDENCIES | sys.stdlib_module_names

EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


def check_text(question):
    """Return what is wrong with a free-text answer, or None."""
    answer = ANSWERS[question] or ""  # null in a configuration file is None
    if not answer.strip():
        return "is empty: write something"
    if answer != answer.strip():
        return "has spaces around it: write it without"
    # Controls, line and paragraph separators, lone surrogates: no file format takes them all.
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in answer):
        return "contains a control character: write plain text on one line"
    # Taken as it stands now, but `cruft update` reads every answer as a template.
    if re.search(r"[{][#%{]", answer):
        return "contains a tag of Jinja's: write no { before another {, a % or a #"
    if len(answer) > MAX_LENGTH[question]:
        return f"is too long: write at most {MAX_LENGTH[question]} characters"
    return None


def check_email(question):
    """Return what is wrong with an email address, or None."""
    if problem := check_text(question):
        return problem
    if not EMAIL.fullmatch(ANSWERS[question]):
        return "is not an email address: write one like you@example.com"
    return None


def check_slug(question):
    """Return what is wrong with the name of the folder, or None."""
    slug = ANSWERS[question] or ""
    if not re.fullmatch(r"[a-z]([a-z0-9_]{0,48}[a-z0-9])?", slug):
        return (
            "is not a name for a folder: write at most 50 lower-case letters a-z, digits and "
            "underscores, a letter first, no underscore last, like my_site"
        )
    is_keyword = keyword.iskeyword(slug) or keyword.issoftkeyword(slug)
    if is_keyword or slug in TAKEN or WINDOWS_DEVICES.fullmatch(slug):
        return (
            "is a name that Python, the site's packages or Windows have taken: write another, "
            f"like {slug}_site"
        )
    return None


CHECKS = {
    "project_name": check_text,
    "project_slug": check_slug,
    "description": check_text,
    "author_name": check_text,
    "author_email": check_email,
}


def remove_parents():
    """Remove the empty folders that a slug with slashes has made on the way to this one.

    Cookiecutter itself removes only the innermost, and complains when it finds it gone.
    """
    folder = os.getcwd()
    os.chdir(os.sep)
    try:
        while True:
            os.rmdir(folder)
            folder = os.path.dirname(folder)
    except OSError:
        pass  # not empty, or not ours


def main():
    if os.listdir():
        sys.exit(
            f"{os.getcwd()} is not empty: nothing was written. To update a site, see "
            "'Updating' in its README; else choose another project_slug or another folder."
        )
    problems = {question: check(question) for question, check in CHECKS.items()}
    lines = [f"{question} {problem}." for question, problem in problems.items() if problem]
    if lines:
        if re.search(r"[/\\]", ANSWERS["project_slug"] or ""):
            remove_parents()
        sys.exit("\n".join(lines))


if __name__ == "__main__":
    main()
