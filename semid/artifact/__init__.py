"""An artifact is a folder of arrays and one manifest, saved so that readers see the old version or the new one.

store.py           load, save, changing, verify: the folder as a whole
manifest.py        semid.json: what the folder holds, its fingerprint, and checking it
tensors.py         arrays in safetensors files: written as a stream, read as memory-mapped views
atomic.py          one writer at a time; files that appear whole or not at all
staging.py         staged_folder: a folder that appears whole or not at all
kinds.py           semantic IDs, cluster tokens, top-k caches, and what to say if one is given for another
token_artifact.py  TokenArtifact: what semantic IDs and cluster tokens have in common
top_k_cache.py     TopKCache: recommendations computed ahead of time, one row per user
old_names.py       names in artifacts of earlier versions, read as what they are called now
hub.py             artifacts on the Hugging Face Hub
"""

from semid.artifact.kinds import check_kind
from semid.artifact.manifest import fingerprint, read_manifest
from semid.artifact.staging import staged_folder
from semid.artifact.store import Artifact, changing, check_output, check_path, load, save, tsv_name, tsv_rows, verify
from semid.artifact.tensors import TensorFile, tensor_blocks
from semid.artifact.token_artifact import TokenArtifact
from semid.artifact.top_k_cache import TopK, TopKCache, history_hash, save_top_k

__all__ = [
    "Artifact", "TensorFile", "TokenArtifact", "TopK", "TopKCache", "changing", "check_kind", "check_output",
    "check_path", "fingerprint", "history_hash", "load", "read_manifest", "save", "save_top_k", "staged_folder",
    "tensor_blocks", "tsv_name", "tsv_rows", "verify",
]  # fmt: skip
