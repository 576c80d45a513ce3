"""The recipes of docs/batch.md, run section by section: not all engines are installed everywhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "batch.md").read_text(encoding="utf-8")


def sections() -> dict[str, str]:
    """Heading -> text of a section of the page; "" is what stands before the first, the catalog to try."""
    parts = re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


def differences(heading: str, folder: Path) -> list[str]:
    """Run the start of the page and one section; a diff of what comes out with what the page shows."""
    blocks = runpy.run_path(str(ROOT / "docs" / "run_blocks.py"))
    page = folder / "batch.md"
    page.write_text(sections()[""] + sections()[heading], encoding="utf-8")
    return blocks["run_page"](page).differences()
