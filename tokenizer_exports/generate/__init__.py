"""Language models that generate items, and nothing but items.

items.py                  generate_items: the best items for each prompt, by beam search over the trie
beam_search.py            the search: one selection per level
trie_tensors.py           TrieTensors, FilterTensors: the trie and its filters on a torch device
prompts.py                prompts, checked and aligned at the right
choose_decoder.py         which decoder and head reproduce a model's own logits
tree_decoder.py           all beams of a prompt as one sequence over one cache
repeat_decoder.py         one copy of the cache per beam, for models that do not take a tree
lm_head.py                the output head, computed for the codes of one level
transformers_versions.py  what transformers calls its arguments, from version to version
constraint.py             Constraints: what may be generated besides the choice of items
token_masker.py           TokenMasker: masks the logits of each row, for every logits processor
logits_processor.py       TrieLogitsProcessor: the same for `generate` of transformers
top_k.py                  build_top_k: recommendations for all users, computed ahead of time
eval_cases.py             prompts of `semid align` with the items that should come next
score_model.py            a model scored on them
score_callback.py         ScoreCallback: the same at every evaluation of a Trainer
"""

from typing import TYPE_CHECKING

from semid._late import late_names

if TYPE_CHECKING:
    from semid.tokenizer_exports.generate.constraint import Constraints, marker_ids
    from semid.tokenizer_exports.generate.items import Generated, generate_items, items_custom_generate
    from semid.tokenizer_exports.generate.logits_processor import TrieLogitsProcessor, prefix_allowed_tokens_fn
    from semid.tokenizer_exports.generate.score_callback import ScoreCallback
    from semid.tokenizer_exports.generate.token_masker import TokenMasker
    from semid.tokenizer_exports.generate.top_k import build_top_k
    from semid.tokenizer_exports.generate.trie_tensors import FilterTensors, TrieTensors

__all__ = [
    "Constraints", "FilterTensors", "Generated", "ScoreCallback", "TokenMasker", "TrieLogitsProcessor", "TrieTensors",
    "build_top_k", "generate_items", "items_custom_generate", "marker_ids", "prefix_allowed_tokens_fn",
]  # fmt: skip
FILES = ".constraint .trie_tensors .token_masker .logits_processor .items .top_k .score_callback"  # lightest first
__getattr__ = late_names(__name__, __all__, FILES.split())
