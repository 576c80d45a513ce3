"""Vectors and codebooks in; codes out, the same bits on any machine.

grid.py             numbers whose products are exact: the root of it all
network.py          encoder and decoder as arrays
codebooks.py        Codebooks: what every learner returns
reference.py        the definition of every operation, in plain NumPy
residual.py         greedy codes, checked against a rounding bound
residual_blocks.py  the same in blocks on the CPU
nearest_numba.py    its compiled loops
residual_torch.py   the same on a torch device
beam.py             codes by beam search
beam_numba.py       its compiled loops
checks.py           checks of vectors and sizes
"""

from semid.quantize.codebooks import Codebooks, chosen_backend
from semid.quantize.network import Decoder, Encoder, FloatLayer, Network

__all__ = ["Codebooks", "Decoder", "Encoder", "FloatLayer", "Network", "chosen_backend"]
