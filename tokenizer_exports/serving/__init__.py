"""Items in serving engines: the server constrains each request to a catalog, and each request may narrow it.

requests.py     RequestOptions and Catalog: what a request may ask for, and the filters that answer it
batch_masks.py  BatchMasker: masks a batch whose rows have different constraints
vllm.py         TrieLogitsProcessorV1 and V2, which vLLM loads by their path, semid.tokenizer_exports.serving.vllm:...
sglang.py       TrieLogitProcessor, which a client sends to SGLang as a string
"""

from semid.tokenizer_exports.serving.requests import Catalog, RequestOptions, open_catalog

__all__ = ["Catalog", "RequestOptions", "open_catalog"]
