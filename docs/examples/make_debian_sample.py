"""Make `debian-3000.jsonl`, the sample catalog: 3,000 Debian packages, spread evenly over the sections.

    apt-get update                                         # a Debian machine, component main
    python docs/examples/make_debian_sample.py > semid/datasets/debian-3000.jsonl

Only packages with debtags are taken, so that each item has more than a name and a line of text, and none that
merely belong to another (debug symbols, headers, transitional packages). Every section in turn gives one package, in
the order of a checksum of the names: the same package lists give the same file, and a package that comes or goes
changes few others.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from itertools import islice, zip_longest

N_ITEMS = 3000
NOTHING_TO_SAY = frozenset({"debug", "introspection", "libdevel", "metapackages", "oldlibs", "otherosfs", "tasks"})
HOW_NOT_WHAT = ("implemented-in::", "made-of::", "uitoolkit::")  # facets that tell how a package is built


def packages() -> Iterator[dict]:
    """Every tagged package of the component main that apt knows."""
    listing = subprocess.run(["apt-cache", "dumpavail"], check=True, capture_output=True, text=True).stdout
    for paragraph in listing.split("\n\n"):
        entry = HeaderParser().parsestr(paragraph.strip())
        section = entry.get("Section", "")
        # "contrib/net" and "non-free/net" are other components; "main" is not written.
        in_main = "/" not in section and entry.get("Filename", "").startswith("pool/main/")
        tags = [tag.strip() for tag in entry.get("Tag", "").split(",")]
        tags = [tag for tag in tags if tag and not tag.endswith("::TODO") and not tag.startswith(HOW_NOT_WHAT)]
        if not in_main or section in NOTHING_TO_SAY or not tags:
            continue
        yield {
            "id": entry["Package"],
            "title": entry["Package"],
            "description": entry["Description"].strip(),
            "categories": [section],
            "tags": tags,
        }


def spread(items: list[dict], n_items: int) -> list[dict]:
    """The first `n_items` when every section gives one item in turn, by the checksum of its name."""
    sections: dict[str, list[dict]] = {}
    for item in sorted(items, key=lambda item: hashlib.sha256(item["id"].encode()).digest()):
        sections.setdefault(item["categories"][0], []).append(item)
    rounds = zip_longest(*(sections[name] for name in sorted(sections)))
    taken = islice((item for turn in rounds for item in turn if item), n_items)
    return sorted(taken, key=lambda item: item["id"])


def main() -> None:
    """Write the sample to standard output, one JSON object a line."""
    for item in spread(list({item["id"]: item for item in packages()}.values()), N_ITEMS):
        sys.stdout.write(json.dumps(item, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
