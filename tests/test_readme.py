"""The READMEs: what they show, name and tell people to run is what there is."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.template import TEMPLATE, copy_template

WORDS_PER_MINUTE = 200

# Who runs the commands of the READMEs: each must match a pattern here.
COMMANDS = {
    r"make (demo|dev|\.env)": "tests/test_demo.py, tests/test_make.py",
    r"make (deps|lint|format|shell)": "here",
    r"make test( SLOW=1)?": ".ci/run, and tests/test_site.py for the site",
    r"\.venv/bin/python manage\.py makemigrations": "here",
    r"\.venv/bin/python manage\.py (migrate|startapp) .*": "tests/test_rooms.py",
    r"\.venv/bin/python manage\.py createsuperuser": "tests/support/browser.py",
    r"uvx (cookiecutter|cruft) .*": "tests/test_cookiecutter.py, tests/test_cruft.py",
    r"docker (push|secret|service|stack|swarm) .*": "tests/test_scale.py, without a registry",
    r"openssl rand .*": "tests/test_scale.py and tests/test_deploy_releases.py, with another key",
    r"docker .*": "tests/test_docker.py",
    r"make (deploy|rollback.*|backup.*|restore .*)": "tests/test_deploy_*.py",
    r"cp secrets/.*": "tests/test_deploy_releases.py, as the change that it makes",
    r"make up": "tests/test_docker.py, as the command that it stands for",
    r"python manage\.py rqstats": "tests/test_site.py",
    r"(heroku|git) .*": "tests/test_heroku_*.py",
    r"rm -r \.venv": "tests/test_make.py, which starts without one",
    r"cd .*": "",
}


@pytest.fixture(scope="module")
def site(bake_session):
    return bake_session(create_git_repo=False)


@pytest.fixture(scope="module")
def documents(site):
    """Every README and its like, by its path."""
    paths = [*TEMPLATE.glob("*.md"), site / "README.md", *site.glob("docs/*.md")]
    return {path: path.read_text() for path in paths}


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(text):
    """Return the anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text):
    """Return the commands of the sh blocks, without comments and variables before them."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.M | re.S)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [re.sub(r"^([A-Z_]+=\S* )+", "", line) for line in lines if line and line[0] != "#"]


def rows(text, heading):
    """Return the first two cells of each row of the first table under the heading."""
    table = text.partition(f"\n{heading}\n")[2].partition("\n|---")[2]
    lines = table.partition("\n")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")[:2]] for line in lines]


# --- Both ------------------------------------------------------------------------------------


def test_relative_links_and_anchors_lead_somewhere(documents):
    for path, text in documents.items():
        text = without_code(text)
        links = re.findall(r"\]\(([^)\s]+)\)", text)
        links += re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
        for link in links:
            if re.match(r"https?:|mailto:", link):
                continue
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            assert target.exists(), f"{path.name}: {link}"
            if anchor:
                assert anchor in anchors(target.read_text()), f"{path.name}: {link}"


def test_every_command_is_one_that_a_test_runs(documents):
    found = [command for text in documents.values() for command in commands(text)]
    assert len(found) > 10
    unknown = [c for c in found if not any(re.fullmatch(p, c) for p in COMMANDS)]
    assert unknown == [], "say in COMMANDS which test runs them"


def test_make_targets_that_are_named_exist(documents, site):
    for path, text in documents.items():
        makefiles = {site / "Makefile"}
        if path.parent == TEMPLATE:
            makefiles.add(TEMPLATE / "Makefile")
        targets = set()
        for makefile in makefiles:
            targets |= set(re.findall(r"^([\w.]+):", makefile.read_text(), re.M))
        targets |= set(re.findall(r"^\+([\w.]+):", text, re.M))  # in the diff of a recipe
        named = re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z.]+)", text)
        named += [c.split()[1] for c in commands(text) if c.startswith("make ")]
        assert set(named) <= targets, path


# --- The site's ------------------------------------------------------------------------------


def test_snippets_are_in_their_files(site, documents):
    text = "\n".join(text for path, text in documents.items() if path.is_relative_to(site))
    snippets = re.findall(r"^<!-- file: (\S+) -->\n```\w*\n(.*?)^```", text, re.M | re.S)
    assert len(snippets) == text.count("<!-- file: ") > 0
    for name, snippet in snippets:
        assert f"\n{snippet}" in f"\n{(site / name).read_text()}", name


def test_the_settings_are_those_of_the_code(site):
    defaults = {}
    files = [
        ast.parse((site / name).read_text()) for name in ("config/settings.py", "tokens/conf.py")
    ]
    for node in itertools.chain(*map(ast.walk, files)):
        if isinstance(node, ast.Call) and re.match(
            r"env\.\w+\('[A-Z]", ast.unparse(node).replace('"', "'")
        ):
            name, *default = node.args
            defaults[name.value] = default[0] if default else None
    example = (site / ".env.example").read_text()
    others = {
        *re.findall(r"^(?:# )?([A-Z_]+)=", example, re.M),
        "DYNO",
    }
    listed = rows((site / "README.md").read_text(), "## Settings")
    table = {name: cell for names, cell in listed for name in re.findall(r"`(\w+)`", names)}
    assert set(table) == set(defaults) | others
    for name, default in defaults.items():
        if isinstance(default, ast.Constant):
            expected = f"`{default.value}`" if default.value != "" else "none"
            assert table[name] == expected or name in {"DATABASE_URL", "REDIS_URL"}, name


def test_files_that_are_named_exist(site):
    for names, _ in rows((site / "README.md").read_text(), "## Where things are"):
        for name in re.findall(r"`([^`]+)`", names):
            assert (site / name).exists(), name


def test_the_sites_readme_is_read_in_half_an_hour(site):
    words = (site / "README.md").read_text().split()
    assert len(words) < 30 * WORDS_PER_MINUTE


def test_the_commands_of_a_moment_work(developed):
    for command, typed in {
        "make lint": "",
        "make format": "",
        "make shell": "print(Token.objects.model)",
        ".venv/bin/python manage.py makemigrations": "",
    }.items():
        done = subprocess.run(
            command.split(), cwd=developed, input=typed, capture_output=True, text=True
        )
        assert done.returncode == 0, command + done.stdout + done.stderr
        assert typed == "" or "tokens.models.Token" in done.stdout


# --- The template's --------------------------------------------------------------------------


def questions():
    """Return the table of questions that the README shows, made from cookiecutter.json."""
    answers = json.loads((TEMPLATE / "cookiecutter.json").read_text())
    prompts = answers["__prompts__"]
    lines = ["| question | answers |", "|---|---|"]
    for name, default in answers.items():
        if name.startswith("_"):
            continue
        prompt = prompts[name]
        question = prompt["__prompt__"] if isinstance(prompt, dict) else prompt
        if isinstance(default, list):
            answer = ", ".join(f"`{choice}`" for choice in default)
        elif isinstance(default, bool):
            answer = "yes, no" if default else "no, yes"
        else:
            answer = "from the name" if "{{" in default else f"text, such as “{default}”"
        lines.append(f"| {question} | {answer} |")
    return "\n".join(lines)


def test_the_questions_are_those_of_the_template():
    table = questions()
    assert f"\n\n{table}\n\n" in (TEMPLATE / "README.md").read_text(), f"paste this:\n{table}"


@pytest.mark.slow
def test_deps_pins_everything_anew(tmp_path):
    """What it picks depends on the day; each lock must still be one, with hashes."""
    clone = copy_template(tmp_path / "clone")
    (clone / ".venv").symlink_to(TEMPLATE / ".venv")
    locks = [*clone.glob("templates/*.txt"), clone / "tests/requirements.txt"]
    assert len(locks) == 5
    for lock in locks:
        lock.write_text(f"# old\n{lock.read_text()}")
    # Older than what was installed from it, so that make installs nothing.
    os.utime(clone / "tests/requirements.txt", (0, 0))
    done = subprocess.run(["make", "deps"], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for lock in locks:
        pinned = re.findall(r"^[\w.-]+(?:\[.*\])?==", lock.read_text(), re.M)
        assert len(pinned) >= 10, lock
        assert "# old" not in lock.read_text()
        assert lock.read_text().count("--hash=sha256:") >= len(pinned)


def test_the_first_result_is_on_the_first_screen():
    text = (TEMPLATE / "README.md").read_text()
    assert len(text[: text.index("make demo")].splitlines()) < 20


def test_numbers_in_the_readme_are_counted():
    text = (TEMPLATE / "README.md").read_text()
    answers = json.loads((TEMPLATE / "cookiecutter.json").read_text())
    asked = [name for name in answers if not name.startswith("_")]
    assert f"{len(asked)} questions" in text
    files = (Path(__file__).parent / "files.txt").read_text().split()
    (about,) = re.findall(r"about (\d+) small files", text)
    assert abs(len(files) - int(about)) < 10


# --- The workflows ---------------------------------------------------------------------------


def test_workflows_have_no_more_rights_than_they_need(site):
    zizmor = Path(sys.executable).with_name("zizmor")
    options = ["--offline", "--config", TEMPLATE / "tests" / "zizmor.yml"]
    for folder in (TEMPLATE, site):
        done = subprocess.run(
            [zizmor, *options, folder / ".github"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_the_sites_workflow_has_the_actions_that_dependabot_upgrades_in_the_templates(site):
    used = [
        set(re.findall(r"uses: (\S+)", (folder / ".github/workflows/ci.yml").read_text()))
        for folder in (TEMPLATE, site)
    ]
    assert used[0] == used[1]
