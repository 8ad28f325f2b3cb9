"""A hook of mkdocs: links that lead from page to file in the repository lead there in the site as well.

Owns: the pages that lie outside docs/, and where a link to any file of the repository leads. A file that is no page, a
manifest say, is taken along as it is, so that the site is whole without a network. A link that leads nowhere is left as
it stands, and mkdocs complains about it.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "SEMANTICS.md": "SEMANTICS.md",
    "SECURITY.md": "SECURITY.md",
    "ARCHITECTURE.md": "ARCHITECTURE.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Path in the repository -> path in the site, of pages outside docs/."""

_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/."""
    for source, uri in OUTSIDE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn every link from what it is in the repository to what it is in the site."""
    uri = page.file.src_uri
    source = next((path for path, place in OUTSIDE.items() if place == uri), f"docs/{uri}")

    def turned(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        place = _place(path, config, files)
        return f"]({posixpath.relpath(place, posixpath.dirname(uri) or '.')}{link[2] or ''})" if place else link[0]

    return _LINK.sub(turned, markdown)


def _place(path: str, config: MkDocsConfig, files: Files) -> str:
    """Where a file of the repository is in the site; '' where there is no such file."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if not (ROOT / path).is_file():
        return ""
    place = f"files/{path}"
    if place not in files.src_uris:
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return place
