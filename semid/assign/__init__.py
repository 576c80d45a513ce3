"""Codes that may collide in; one unique ID per item out.

choose.py         assign: by the config's method, and by how many items there are
unique.py         assign_unique: exact matching inside each prefix, with a certificate
problem.py        the checked input
capacity.py       are there enough IDs?
buckets.py        find the collisions and settle them prefix by prefix
matching.py       members of a prefix to its last codes at the least total cost
overflow.py       items that do not fit: the nearest prefix with free codes
occupancy.py      which IDs are in use
distances.py      scores, errors and the nearest prefixes
keys.py           codes as sortable keys
global_search.py  assignment across all prefixes by beam search
stable.py         items that keep the IDs they had
"""

from typing import TYPE_CHECKING

from semid._late import late_names

if TYPE_CHECKING:
    from semid.assign.choose import assign
    from semid.assign.global_search import assign_global
    from semid.assign.stable import assign_stable, reuse_old_ids
    from semid.assign.unique import Assignment, Certificate, assign_by_first_code, assign_unique

__all__ = [
    "Assignment", "Certificate", "assign", "assign_by_first_code", "assign_global", "assign_stable", "assign_unique",
    "reuse_old_ids",
]  # fmt: skip
__getattr__ = late_names(__name__, __all__, (".unique", ".stable", ".global_search", ".choose"))  # lightest first
