"""Vectors that know behavior: adapt a language model to a catalog and its interactions (LLMEmb, arXiv 2409.19925).

config.py          AdaptConfig
pairs.py           items that users met near each other, and batches of them
attributes.py      views of an item, each without some of its attributes
behavior.py        what is learned from, who judges and what is reported
losses.py          InfoNCE in both directions, and LLMEmb's loss with soft targets
adapter.py         a residual MLP or a matrix on top of frozen vectors, as plain dense layers
layers.py          such layers, learned from behavior, attribute views, or both
text_pairs.py      batches of pairs of texts, for training a language model
language_model.py  such training, with LoRA or of all weights, and the model that leaves
trainer.py         how the trainer of sentence-transformers is set up for it
sasrec.py          a sequential recommender on item vectors
rat.py             layers on top of frozen vectors that learn inside it
report.py          plain, whitened and adapted vectors side by side
folder.py          the sentence-transformers folder that is written
vectors.py         item vectors in a file, for other recommenders
workspace.py       the folder of an unfinished training, which a later run goes on with
run.py             adapt: items, interactions and a model in; a model out
"""

from typing import TYPE_CHECKING

from semid._late import late_names
from semid.adaptation.config import AdaptConfig

if TYPE_CHECKING:
    from semid.adaptation.run import Adapted, adapt

__all__ = ["AdaptConfig", "Adapted", "adapt"]
__getattr__ = late_names(__name__, __all__, (".run",))
