"""The pages hold together: no dead link, every page in the index, a way back from each, figures as in their tables."""

from __future__ import annotations

import json
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
from figure_helpers import ROOT, prose

PAGES = sorted((ROOT / "docs").rglob("*.md"))
LINK = re.compile(r"\]\(([^()\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.name
)
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_the_index_names_every_page_and_every_page_leads_back() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text())}
    assert [str(page.relative_to(ROOT)) for page in PAGES if page != index and page not in linked] == []
    assert [
        str(page.relative_to(ROOT))
        for page in PAGES
        if page != index
        and not re.search(r"^\[Documentation\]\(\S*README\.md\)$", page.read_text(), re.MULTILINE)
    ] == []


# --- figures ----------------------------------------------------------------------------------------------------------

HEADLINES = json.loads((ROOT / "docs" / "results" / "headlines.json").read_text(encoding="utf-8"))


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?", text)


@pytest.mark.parametrize("entry", HEADLINES, ids=lambda entry: entry["quoted"])
def test_a_quoted_figure_is_that_of_its_table(entry: dict[str, Any]) -> None:
    """`text` stands in the source, in the row named; `quoted` is the same, scaled and rounded, on every page named."""
    source = (ROOT / entry["source"]).read_text(encoding="utf-8")
    rows = [line for line in source.splitlines() if line.startswith(f"| {entry['row']} |")] or [source]
    assert any(entry["text"] in row for row in rows), "the table has another figure"
    quoted = [number for number in numbers(entry["quoted"]) if float(number) not in entry.get("ignore", [])]
    for said, measured in zip(quoted, numbers(entry["text"]), strict=True):
        value = Decimal(measured) * entry["scale"]
        places = Decimal(1).scaleb(-len(said.partition(".")[2]))
        assert said == str(value.quantize(places, rounding=ROUND_HALF_UP))
    for page in entry["pages"]:
        assert entry["quoted"] in prose(page), page


def test_every_interval_of_the_readme_has_a_source() -> None:
    quoted = [entry["quoted"] for entry in HEADLINES if "README.md" in entry["pages"]]
    said = re.findall(r"\d+\.\d+ ± \d+\.\d+", prose("README.md"))
    assert said and [figure for figure in said if figure not in quoted] == []


def test_the_quickstarts_table_is_the_same_wherever_it_stands() -> None:
    table = [re.findall(r"^    (?:grpo|kl_cov) .*$", text, re.MULTILINE) for text in (
        (ROOT / "README.md").read_text(encoding="utf-8"), (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    )]  # fmt: skip
    assert len(table[0]) == 2 and table[0] == table[1]
