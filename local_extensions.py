"""Refuse bad answers with one line each, before a folder is made.

cookiecutter.json applies this Jinja filter once the last answer is in. A hook would be too late:
Cookiecutter has made the folder by then, and removes it if the hook fails. For a project_slug like
`x/..`, that is the folder that the site was to go into, with everything in it.

Give no other filter a name here: `cruft update` renders both versions with the older one's module.
"""

import re
import unicodedata

from cookiecutter.exceptions import FailedHookException
from cookiecutter.utils import simple_filter

# The longest answers, in characters.
MAX_LENGTH = {"project_name": 100, "description": 200, "author_name": 100, "author_email": 254}

# Compose names a project and its image after the folder. An image name may have one or two
# underscores, or any number of hyphens, between letters and digits.
SLUG = re.compile(r"[a-z][a-z0-9]*((_{1,2}|-+)[a-z0-9]+)*")
WINDOWS_DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]")

EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


def check_text(question, answer):
    """Return the problem with a line of text, or None."""
    if not answer.strip():
        return "is empty: write something"
    if answer != answer.strip():
        return "starts or ends with a space: remove it"
    # Not every file format can hold control characters, line separators and lone surrogates.
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in answer):
        return "contains a control character: write plain text on one line"
    # Cookiecutter takes a typed answer as it is, but `cruft update` renders it as a template.
    if re.search(r"[{][#%{]", answer):
        return "contains a Jinja tag: do not write { before {, % or #"
    if len(answer) > MAX_LENGTH[question]:
        return f"is too long: write at most {MAX_LENGTH[question]} characters"
    return None


def check_email(question, answer):
    """Return the problem with an email address, or None."""
    if problem := check_text(question, answer):
        return problem
    if not EMAIL.fullmatch(answer):
        return "is not an email address: write one like you@example.com"
    return None


def check_slug(question, answer):
    """Return the problem with the name of the folder, or None."""
    if not SLUG.fullmatch(answer) or len(answer) > 50:
        return (
            "is not a valid folder and image name: write at most 50 lower-case letters a-z and "
            "digits, a letter first, with single hyphens or underscores between them, like my-site"
        )
    if WINDOWS_DEVICES.fullmatch(answer):
        return f"is reserved on Windows: write another name, like {answer}-site"
    return None


CHECKS = {
    "project_name": check_text,
    "project_slug": check_slug,
    "description": check_text,
    "author_name": check_text,
    "author_email": check_email,
}


@simple_filter
def check_answers(answers):
    """Return an empty string, or raise what Cookiecutter shows without a traceback."""
    lines = []
    for question, check in CHECKS.items():
        # A null in a configuration file arrives as None.
        if problem := check(question, answers[question] or ""):
            lines.append(f"{question} {problem}.")
    if lines:
        raise FailedHookException("\n".join(lines))
    return ""
