"""The GPU kernels, and which of them runs. Imports torch and Triton alone; every tensor stays where it is.

dispatch          triton, torch or numpy: chosen once, with the reason
residual_assign   codes of all levels in one launch, exact
residual_train    the training step's forward and backward, as an operator of torch
kmeans_update     nearest codes, sums and counts in one pass
sinkhorn          balanced assignment without an N x K matrix
trie_step         one step of beam search over the children of trie nodes
"""
