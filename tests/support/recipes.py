"""The diffs of docs/recipes.md, and applying them to a baked site."""

import base64
import re
import subprocess

from support.commands import BIN, run
from support.template import SOURCE

# The recipes that each one needs.
NEEDS = {
    "Uploads": ["Login pages"],
    "Uploads on S3": ["Outbound access"],
    "Error reports": ["Outbound access"],
}


PAGE = SOURCE / "docs/recipes.md"


def read_recipes():
    """Return each recipe's diff by its heading, in the order of the chapter."""
    sections = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.M)[1:]
    recipes = {}
    for heading, section in zip(sections[::2], sections[1::2], strict=True):
        if diffs := re.findall(r"^```diff\n(.*?)^```", section, re.M | re.S):
            recipes[heading] = "".join(diffs)
    return recipes


RECIPES = read_recipes()


def apply(site, *names, check=False):
    """Apply the recipes' diffs with `git apply`, after those that they need.

    Return its complaint if it refuses. With `check`, change nothing.
    """
    wanted = dict.fromkeys(each for name in names for each in [*NEEDS.get(name, []), name])
    command = ["git", "apply", *(["--check"] if check else []), "-"]
    diff = "".join(RECIPES[name] for name in wanted)
    return subprocess.run(command, cwd=site, input=diff, capture_output=True, text=True).stderr


def put_in(site, *names):
    """Apply these recipes to the site, pin their packages, and return the site."""
    assert apply(site, *names) == ""
    # As `make deps` does, but without changing other versions.
    floor = re.search(r"^PYTHON_FLOOR := (\S+)", (site / "Makefile").read_text(), re.M)[1]
    for lock in ("requirements", "requirements-dev"):
        command = [BIN / "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
        command += ["--no-strip-extras", "--python-version", floor]
        run(*command, f"--output-file={lock}.txt", f"{lock}.in", site=site)
    return site


def compile_messages(site, site_bin):
    """Compile the translations: the result is binary, so no diff contains it."""
    if any(site.glob("*/locale")):
        run(site_bin / "python", "manage.py", "compilemessages", "--ignore=.venv", site=site)


def upload(visitor, name, content):
    """Upload a picture; return the next page."""
    csrf = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', visitor.page("/pictures/"))[1]
    boundary = "boundary"
    fields = {
        'name="csrfmiddlewaretoken"': csrf.encode(),
        f'name="file"; filename="{name}"': content,
    }
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + value + b"\r\n"
        for head, value in fields.items()
    )
    body += f"--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    response = visitor.request("POST", "/pictures/", body, **kind)
    return visitor.page("/pictures/") if response.status == 302 else response.text


# The smallest PNG: one black pixel.
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
