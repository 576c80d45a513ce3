"""Make up histories for the sample catalog: users who install packages with a tag in common, and some others.

    python docs/examples/made_up_histories.py > histories.jsonl

They show how commands are used. What they teach was in the catalog already, so no figure from them is a result.
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict

from semid.datasets import load

N_USERS = 1500
FEWEST, MOST = 8, 150  # packages of a tag that users go by
OF_THE_TAG, OTHERS = 7, 2  # packages of a user


def main() -> None:
    """Print one history a line, the last package installed last."""
    catalog = list(load("debian").items)
    by_tag = defaultdict(list)
    for item in catalog:
        for tag in item["tags"].split(", "):
            by_tag[tag].append(item["id"])
    groups = [ids for tag, ids in sorted(by_tag.items()) if FEWEST <= len(ids) <= MOST]
    draw = random.Random(0)
    for user in range(N_USERS):
        items = draw.sample(draw.choice(groups), OF_THE_TAG) + [draw.choice(catalog)["id"] for _ in range(OTHERS)]
        draw.shuffle(items)
        sys.stdout.write(json.dumps({"user": f"user-{user}", "items": items}) + "\n")


if __name__ == "__main__":
    main()
