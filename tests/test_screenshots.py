"""The README's pictures."""

import os
from pathlib import Path

import pytest
from support.browser import (
    browse,
    frozen,
    generate,
    start_job,
)
from support.pythons import newest_django


@pytest.mark.xdist_group("network")  # see test_browser_visitors.py
@pytest.mark.parametrize("variant", [newest_django()], indirect=True)
def test_screenshots_are_taken(chromium, live_site, tmp_path):
    """`make screenshots` keeps them, in the folder that SCREENSHOTS names."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))

    def shoot(name):
        page.screenshot(path=folder / f"{name}.png", animations="disabled")
        assert 5_000 < (folder / f"{name}.png").stat().st_size < 60_000

    with browse(chromium, live_site, viewport={"width": 900, "height": 540}) as page:
        page.goto("/")
        shoot("empty")
        generate(page)
        start_job(page)
        with frozen(live_site.worker):
            page.mouse.move(0, 0)
            shoot("light")
            page.emulate_media(color_scheme="dark")
            shoot("dark")
            page.set_viewport_size({"width": 375, "height": 640})
            shoot("phone")
