"""Putting a benchmark's tables into a page, between the marks that name it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["update"]


def update(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- NAME ... -->` and `<!-- /NAME -->`; SystemExit if there are no such marks."""
    content = page.read_text("utf-8")
    start, end = content.find(f"<!-- {name}"), content.find(f"<!-- /{name} -->")
    if not 0 <= start < end:
        raise SystemExit(f"{page}: no marks <!-- {name} --> ... <!-- /{name} --> there.")
    begin = content.index("-->", start) + len("-->")
    page.write_text(f"{content[:begin]}\n{text.strip()}\n{content[end:]}", "utf-8")
