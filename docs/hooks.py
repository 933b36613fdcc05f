"""Build the site from the same pages that are read on GitHub.

What links out of docs/ name is copied into the site. Public names of docs/reference/api.md get signatures and whole
docstrings. Nothing is asked of the network.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = "repository"  # folder of the site for files outside of docs/
LINK = re.compile(r"(?<=\]\()([^()\s:#]+)(#[^()\s]*)?(?=\))")
NAME = re.compile(r"^### \w+\n\n(?:.+\n)+\n<!-- api: (\S+) -->$", re.MULTILINE)


def _at(target: str) -> str:
    """Return the place in the site of a file, from its place in the repository."""
    return posixpath.relpath(target, "docs") if target.startswith("docs/") else f"{OUTSIDE}/{target}"


def _from(source: str) -> str:
    """Return the place in the repository of a page of the site."""
    return source.removeprefix(f"{OUTSIDE}/") if source.startswith(f"{OUTSIDE}/") else f"docs/{source}"


def _targets(source: str) -> list[str]:
    """Return the files that a page names, by their places in the repository."""
    folder, text = posixpath.dirname(source), (ROOT / source).read_text(encoding="utf-8")
    return [posixpath.normpath(posixpath.join(folder, link)) for link, _ in LINK.findall(text)]


def on_files(files: Files, config: Any) -> Files:
    """Add what pages name outside of docs/, and what those files name in turn."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        for target in _targets(waiting.pop()):
            if target not in seen and not target.startswith("docs/") and (ROOT / target).is_file():
                seen.add(target)
                path = str(ROOT / target)
                files.append(File.generated(config, _at(target), abs_src_path=path))
                if target.endswith(".md"):
                    waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to places in the repository into links to places in the site, and names into whole docstrings."""
    source = _from(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        return posixpath.relpath(_at(target), here or ".") + (match[2] or "")

    return NAME.sub(r"::: \1\n    options:\n      heading_level: 3", LINK.sub(moved, markdown))
