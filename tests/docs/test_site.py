"""The documentation builds as a site without a warning: no broken link, no page that the sidebar lacks."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

KINDS = ("how-to", "explanation", "reference")


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; skips where the tools are missing."""
    for tool in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(tool, reason="the site is built with the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(folder / "doctrees"), str(repository / "docs"), str(folder / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


class Sources(HTMLParser):
    """What a page loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the address of every script, picture and style sheet."""
        values = dict(attrs)
        address = values.get("src") if tag in ("script", "img", "iframe") else None
        address = values.get("href") if tag == "link" else address
        if address:
            self.loaded.append(address)


def test_every_page_is_in_the_sidebar(repository: Path, site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    sidebar = index[index.index("sidebar-tree") : index.index("</aside>")]
    pages = [page.relative_to(repository / "docs") for page in (repository / "docs").rglob("*.md")]
    assert {page.parent.name for page in pages} == {"", *KINDS}
    missing = [page for page in pages if page.stem != "index" and f'href="{page.with_suffix(".html")}"' not in sidebar]
    assert not missing


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        foreign = [
            address
            for address in Sources(page.read_text(encoding="utf-8")).loaded
            if re.match(r"(?:https?:)?//", address)
        ]
        assert not foreign, page.name


def test_folders_are_no_links(site: Path) -> None:
    page = (site / "how-to" / "studies.html").read_text(encoding="utf-8")
    assert "repository are in studies/." in page
