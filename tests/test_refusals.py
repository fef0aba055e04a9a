"""Bad answers are refused with one line each, before anything is written."""

import pytest
from cookiecutter.exceptions import FailedHookException
from support.commands import cookiecutter
from support.template import literal

REFUSED = [
    ("project_name", " ", "is empty: write something"),
    ("project_name", " x", "starts or ends with a space: remove it"),
    ("project_name", "a\nb", "contains a control character: write plain text on one line"),
    ("project_name", "a\u2028b", "contains a control character: write plain text on one line"),
    ("description", None, "is empty: write something"),
    ("project_name", "{{ x", "contains a Jinja tag: do not write { before {, % or #"),
    ("project_name", "\ud83e\udd8a", "contains a control character: write plain text on one"),
    ("project_name", "x" * 101, "is too long: write at most 100 characters"),
    ("description", "", "is empty: write something"),
    ("description", "x" * 201, "is too long: write at most 200 characters"),
    ("author_name", "a\x07b", "contains a control character: write plain text on one line"),
    ("author_email", "", "is empty: write something"),
    ("author_email", "nobody", "is not an email address: write one like you@example.com"),
    ("author_email", "a@b", "is not an email address: write one like you@example.com"),
    ("author_email", "a b@example.com", "is not an email address"),
    *(
        ("project_slug", slug, "is not a valid folder and image name: write at most 50")
        for slug in (None, "My_Site", "1site", "sité", "x" * 51, "-x")
    ),
    # Docker refuses the image names that Compose would make from these.
    *(
        ("project_slug", slug, "is not a valid folder and image name: write at most 50")
        for slug in ("site_", "site-", "my___site", "my_-site", "my-_site", "my.site")
    ),
    *(
        ("project_slug", slug, f"is reserved on Windows: write another name, like {slug}-site")
        for slug in ("con", "nul", "com0", "lpt1")
    ),
]


@pytest.mark.parametrize(("question", "answer", "message"), REFUSED)
def test_a_bad_answer_is_refused_with_one_line(question, answer, message, bake):
    with pytest.raises(FailedHookException) as refusal:
        bake(**{question: answer and literal(answer)})
    (line,) = str(refusal.value).splitlines()
    assert line.startswith(f"{question} ")
    assert message in line


# On the command line: what is printed, and what is left behind.


def test_each_bad_answer_gets_a_line_and_nothing_is_written(tmp_path):
    answers = ["project_name= ", "project_slug=Site", "author_email=x"]
    done = cookiecutter(tmp_path, "--no-input", *answers)
    assert done.returncode == 1
    assert [line.partition(" ")[0] for line in done.stdout.splitlines()] == [
        "project_name",
        "project_slug",
        "author_email",
    ]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


PATHS = ["", ".", "..", "/", "a/b/c", "x/..", "../outside/b", "{folder}/absolute/b", "x" * 10_000]


@pytest.mark.parametrize("slug", PATHS)
def test_a_path_as_slug_creates_and_removes_nothing(slug, tmp_path):
    folder = tmp_path / "sites"
    (folder / "empty").mkdir(parents=True)
    (folder / "mine").touch()
    before = set(tmp_path.rglob("*"))
    slug = slug.format(folder=tmp_path)
    # Into the current folder, and into another one.
    for options in ({"cwd": folder}, {}):
        output = "." if options else folder
        done = cookiecutter(output, "--no-input", "-f", f"project_slug={slug}", **options)
        assert done.returncode == 1
        assert done.stdout.startswith(
            "project_slug is not a valid folder and image name: write at most 50"
        )
        assert set(tmp_path.rglob("*")) == before
