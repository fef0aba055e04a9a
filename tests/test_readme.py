"""The documentation matches the code: commands, files, settings, snippets and links."""

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

# Each command in the documentation must match a pattern here: the tests that run it ...
RUN = {
    r"make (demo|dev|\.env)": "test_demo.py test_make.py",
    r"make (deps|lint|format|shell)": "test_readme.py",
    r"make test": "test_site.py",
    r"make up": "test_docker.py",
    r"make (deploy|rollback.*|backup.*|restore .*)": "test_deploy_data.py test_deploy_releases.py",
    r"\.venv/bin/(python manage\.py makemigrations|pytest users)": "test_readme.py",
    r"\.venv/bin/python manage\.py (migrate|startapp) .*": "test_own_apps.py",
    r"\.venv/bin/python manage\.py createsuperuser": "support/browser.py",
    r"rm -r \.venv": "test_make.py",
    r"uvx (cookiecutter|cruft) .*": "test_cookiecutter.py test_cruft.py",
    r"git (add|commit|diff) .*": "test_cruft.py",
    r"git apply .*": "test_recipes.py",
    r"git (grep|rm) .*": "test_own_apps.py",
    r"docker (build|run) .*": "test_docker.py test_scale.py",
    r"docker (secret|service|stack|swarm) .*": "test_scale.py",
    r"docker compose exec web .*": "test_docker.py",
    r"docker compose exec worker python manage\.py rqstats": "test_docker.py",
    r"docker exec .* createsuperuser": "test_scale.py",
    r"docker compose (up|down|ps|logs).*": "test_docker.py test_deploy_data.py",
    r"docker compose exec web-a python manage\.py createsuperuser": "support/browser.py",
    r"docker compose exec --no-TTY db (pg_dump|pg_restore) .*": "test_deploy_data.py",
    r"(cp|openssl rand -hex 32 >) secrets/.*": "test_deploy_releases.py",
    r"openssl rand -hex 32 \| docker secret .*": "test_scale.py",
}
# ... or why no test runs it.
NOT_RUN = {
    r"make test SLOW=1": "It would run itself. .ci/run runs it.",
    r"heroku .*|git push heroku main": "Needs an account. test_heroku_*.py imitate what follows.",
    r"docker push .*": "Needs a registry.",
    r"docker compose exec caddy rm -f /tmp/closed": "Needs a power failure.",
    r"docker image ls": "Docker's own, and nothing depends on the site.",
}


@pytest.fixture(scope="module")
def site(bake_session):
    return bake_session(create_git_repo=False)


@pytest.fixture(scope="module")
def documents(site):
    """Every README and chapter, by its path."""
    paths = [*TEMPLATE.glob("*.md"), site / "README.md", *site.glob("docs/*.md")]
    return {path: path.read_text() for path in paths}


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(text):
    """Return the anchors that GitHub makes from the headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text):
    """Return the commands in sh blocks, without comments and leading variables."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.M | re.S)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [re.sub(r"^([A-Z_]+=\S* )+", "", line) for line in lines if line and line[0] != "#"]


def rows(text, heading):
    """Return the first two cells of each row of the first table under the heading."""
    table = text.partition(f"\n{heading}\n")[2].partition("\n|---")[2]
    lines = table.partition("\n")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")[:2]] for line in lines]


# --- Both ------------------------------------------------------------------------------------


def test_relative_links_and_anchors_exist(documents):
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


def test_every_command_is_run_by_a_test_or_has_a_reason(documents):
    found = {command for text in documents.values() for command in commands(text)}
    assert len(found) > 50
    patterns = RUN | NOT_RUN
    unknown = [c for c in found if not any(re.fullmatch(p, c) for p in patterns)]
    assert unknown == [], "say in RUN which test runs them, or in NOT_RUN why none does"
    unused = [p for p in patterns if not any(re.fullmatch(p, c) for c in found)]
    assert unused == []
    for name in " ".join(RUN.values()).split():
        assert (Path(__file__).parent / name).exists()


def test_named_make_targets_exist(documents, site):
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


def test_snippets_are_parts_of_their_files(site, documents):
    text = "\n".join(text for path, text in documents.items() if path.is_relative_to(site))
    snippets = re.findall(r"^<!-- file: (\S+) -->\n```\w*\n(.*?)^```", text, re.M | re.S)
    assert len(snippets) == text.count("<!-- file: ") > 0
    for name, snippet in snippets:
        assert f"\n{snippet}" in f"\n{(site / name).read_text()}", name


def test_the_table_of_settings_matches_the_code(site):
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


def test_named_files_exist(site):
    for names, _ in rows((site / "README.md").read_text(), "## Where things are"):
        for name in re.findall(r"`([^`]+)`", names):
            assert (site / name).exists(), name


def test_the_sites_readme_takes_ten_minutes_to_read(site):
    text = (site / "README.md").read_text()
    assert len(without_code(text).split()) <= 10 * WORDS_PER_MINUTE
    assert len(text.splitlines()) <= 300


def test_the_sites_readme_names_every_chapter(site):
    chapters = {path.name for path in site.glob("docs/*.md")}
    table = rows((site / "README.md").read_text(), "### Chapters")
    assert {re.search(r"docs/(.+)\)", cell)[1] for cell, _ in table} == chapters


def test_quick_commands_work(developed):
    for command, typed in {
        "make lint": "",
        "make format": "",
        "make shell": "print(Token.objects.model)",
        ".venv/bin/python manage.py makemigrations": "",
        ".venv/bin/pytest users": "",
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


def test_the_table_of_questions_matches_the_template():
    table = questions()
    assert f"\n\n{table}\n\n" in (TEMPLATE / "README.md").read_text(), f"paste this:\n{table}"


@pytest.mark.slow
def test_deps_pins_everything_again(tmp_path):
    """The versions depend on the day. Each lock must still pin them, with hashes."""
    clone = copy_template(tmp_path / "clone")
    (clone / ".venv").symlink_to(TEMPLATE / ".venv")
    locks = [*clone.glob("templates/*.txt"), clone / "tests/requirements.txt"]
    assert len(locks) == 5
    for lock in locks:
        lock.write_text(f"# old\n{lock.read_text()}")
    # Older than the installation, so that make installs nothing.
    os.utime(clone / "tests/requirements.txt", (0, 0))
    done = subprocess.run(["make", "deps"], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for lock in locks:
        pinned = re.findall(r"^[\w.-]+(?:\[.*\])?==", lock.read_text(), re.M)
        assert len(pinned) >= 10, lock
        assert "# old" not in lock.read_text()
        assert lock.read_text().count("--hash=sha256:") >= len(pinned)


def test_the_first_command_is_on_the_first_screen():
    text = (TEMPLATE / "README.md").read_text()
    assert len(text[: text.index("make demo")].splitlines()) < 20


def test_numbers_in_the_readme_are_right():
    text = (TEMPLATE / "README.md").read_text()
    answers = json.loads((TEMPLATE / "cookiecutter.json").read_text())
    asked = [name for name in answers if not name.startswith("_")]
    assert f"{len(asked)} questions" in text
    files = (Path(__file__).parent / "files.txt").read_text().split()
    (about,) = re.findall(r"about (\d+) small files", text)
    assert abs(len(files) - int(about)) < 10


# --- The workflows ---------------------------------------------------------------------------


def test_workflows_have_only_the_rights_they_need(site):
    zizmor = Path(sys.executable).with_name("zizmor")
    options = ["--offline", "--config", TEMPLATE / "tests" / "zizmor.yml"]
    for folder in (TEMPLATE, site):
        done = subprocess.run(
            [zizmor, *options, folder / ".github"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_the_site_uses_the_same_actions_as_the_template(site):
    used = [
        set(re.findall(r"uses: (\S+)", (folder / ".github/workflows/ci.yml").read_text()))
        for folder in (TEMPLATE, site)
    ]
    assert used[0] == used[1]
