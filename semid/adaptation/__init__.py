"""Vectors that know behavior: adapt a language model to a catalog and its interactions (LLMEmb, arXiv 2409.19925).

config.py          AdaptConfig
pairs.py           items that users met near each other, and batches of them
losses.py          InfoNCE in both directions, and LLMEmb's loss with soft targets
adapter.py         a residual MLP or a matrix on top of frozen vectors, as plain dense layers
folder.py          the sentence-transformers folder that is written
report.py          plain, whitened and adapted vectors side by side
run.py             adapt: items, interactions and a model in; a model out
"""

from typing import TYPE_CHECKING

from semid._late import late_names
from semid.adaptation.config import AdaptConfig

if TYPE_CHECKING:
    from semid.adaptation.run import Adapted, adapt

__all__ = ["AdaptConfig", "Adapted", "adapt"]
__getattr__ = late_names(__name__, __all__, (".run",))
