"""Settings of Sphinx. The pages are plain Markdown that reads well on a git host, too; `make docs` builds the site."""

from __future__ import annotations

import re
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx

project = "Lentigo"
author = copyright = "The Lentigo authors"
release = version = installed_version("lentigo")
extensions = ["myst_parser"]
root_doc = "index"
html_theme = "furo"
html_title = "Lentigo"
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "native"
# Links name headings as git hosts do.
myst_heading_anchors = 4
# Most code is lines of a shell or trees of files, which have no grammar.
highlight_language = "none"
# Two dashes begin an option, they are no dash.
smartquotes = False
html_static_path: list[str] = ["static"]
html_css_files = ["site.css"]
# The colours of the page that `lentigo serve` shows.
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0a67a3", "color-brand-content": "#0a67a3"},
    "dark_css_variables": {"color-brand-primary": "#6db5ee", "color-brand-content": "#6db5ee"},
}


def sidebar(text: str) -> str:
    """Tables of contents for the sidebar, from the lists of links below the headings of index.md."""
    parts = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        caption, _, body = section.partition("\n")
        links = re.findall(r"^- \[(.*)\]\((.*)\.md\)$", body, flags=re.MULTILINE)
        pages = "\n".join(f"{title} <{page}>" for title, page in links)
        parts.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```")
    return "\n\n".join(parts)


def without_folders(text: str, folder: Path) -> str:
    """Links to folders as plain text: a git host shows folders, a site has none."""

    def plain(link: re.Match[str]) -> str:
        return link[1] if (folder / link[2]).is_dir() else link[0]

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)#:]+)\)", plain, text)


def adapt_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Make a page of the site from a page of the repository while it is read."""
    source[0] = without_folders(source[0], Path(app.srcdir, name).parent)
    if name == app.config.root_doc:
        source[0] += "\n" + sidebar(source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", adapt_page)
