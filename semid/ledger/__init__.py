"""The append-only table of items: which item has which codes.

ledger.py    Ledger: create, look up, append, retire
segment.py   the rows that one change brought, with their indexes
new_rows.py  new rows, checked
lookup.py    finding ids and codes by bisection in mapped arrays
checks.py    every invariant, checked by reading all of it
"""

from semid.ledger.ledger import Ledger, UsedCodes
from semid.ledger.lookup import code_keys, hash_ids, hashes_of, near_ids
from semid.ledger.segment import Segment

__all__ = ["Ledger", "Segment", "UsedCodes", "code_keys", "hash_ids", "hashes_of", "near_ids"]
