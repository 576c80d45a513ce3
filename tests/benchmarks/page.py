"""Put a benchmark's tables into a page, between the marks that bear its name."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["update"]


def update(page: Path, name: str, text: str) -> None:
    """Replace the text between `<!-- NAME -->` or `<!-- NAME: ... -->` and `<!-- /NAME -->`.

    SystemExit if the page lacks these marks, or has those of another benchmark between them.
    """
    content = page.read_text("utf-8")
    begin = re.search(rf"<!-- {re.escape(name)}(: [^\n]*?)? -->", content)
    end = content.find(f"<!-- /{name} -->")
    if begin is None or end < begin.end():
        raise SystemExit(f"{page}: no marks <!-- {name} --> ... <!-- /{name} --> there.")
    if other := re.search(r"<!-- [^\n]*? -->", content[begin.end() : end]):
        raise SystemExit(f"{page}: {other[0]} stands between the marks of {name}. Mend the page first.")
    page.write_text(f"{content[: begin.end()]}\n{text.strip()}\n{content[end:]}", "utf-8")
