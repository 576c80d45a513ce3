"""The prefix index over codes: which codes may follow a prefix, which item an ID belongs to, which items are admitted.

trie.py     Trie: the index as three arrays, walks, children, ranks
filters.py  Filter: restricts generation to some items; Origin: which trie a filter was made from
file.py     a trie in one safetensors file, checked when read
"""

from semid.trie.filters import Filter, Origin
from semid.trie.trie import Trie

__all__ = ["Filter", "Origin", "Trie"]
