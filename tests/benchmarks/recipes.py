"""How each system learns residual codes, as its own documentation says, behind one pair of functions.

A recipe takes vectors [N, D], L, K and a seed, and returns what it learned: `encode` and `reconstruct`, and where
the system can give every item its own ID inside the L levels, `unique`. Besides the documented recipe, a peer gets
a better one where that is cheap; the names say what differs. Nothing is measured here: see peers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["RECIPES", "Learned", "Recipe", "Task"]

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Task:
    """The same for everybody."""

    vectors: Floats  # (N, D)
    levels: int
    codebook_size: int
    seed: int
    epochs: int | None = None  # instead of the recipe's own number, for a quick look

    @property
    def width(self) -> int:
        """D"""
        return self.vectors.shape[1]


@dataclass(frozen=True)
class Learned:
    """What a recipe learned."""

    encode: Callable[[Floats], Codes]
    reconstruct: Callable[[Codes], Floats]
    unique: Callable[[Floats, Codes], Codes] | None = None


@dataclass(frozen=True)
class Recipe:
    """One row of the table."""

    title: str
    what: str  # the choices, in words
    modules: tuple[str, ...]  # imported before the clock starts
    install: str  # for who has it not
    learn: Callable[[Task], Learned]


# ---- semid -------------------------------------------------------------------------------------------------


def semid_rqvae(task: Task) -> Learned:
    from semid.train.rqvae import RQVAE

    return _semid(RQVAE, task)


def semid_rqkmeans(task: Task) -> Learned:
    from semid.train.residual_kmeans import ResidualKMeans

    return _semid(ResidualKMeans, task)


def _semid(learner: type, task: Task) -> Learned:
    from semid.assign.unique import assign_unique

    choices = {} if task.epochs is None or "epochs" not in learner().get_params() else {"epochs": task.epochs}
    learned = learner(levels=task.levels, codebook_size=task.codebook_size, seed=task.seed, **choices)
    books = learned.fit(task.vectors).codebooks_

    def unique(vectors: Floats, codes: Codes) -> Codes:
        return assign_unique(books.latents(vectors), codes, books.levels).codes

    return Learned(books.encode, books.reconstruct, unique)


# ---- faiss -------------------------------------------------------------------------------------------------


def faiss_plain(task: Task) -> Learned:
    return _faiss(task, beam=1, progressive=False)


def faiss_progressive(task: Task) -> Learned:
    return _faiss(task, beam=1, progressive=True)


def faiss_beam(task: Task) -> Learned:
    return _faiss(task, beam=5, progressive=True)


def _faiss(task: Task, *, beam: int, progressive: bool) -> Learned:
    import faiss

    bits = (task.codebook_size - 1).bit_length()
    if 2**bits != task.codebook_size:
        raise SystemExit(f"--codebook-size {task.codebook_size} should be a power of two for faiss.")
    quantizer = faiss.ResidualQuantizer(task.width, task.levels, bits)
    quantizer.max_beam_size = beam
    train_type = faiss.ResidualQuantizer.Train_progressive_dim if progressive else faiss.ResidualQuantizer.Train_default
    quantizer.train_type = train_type
    quantizer.cp.seed = task.seed
    quantizer.train(task.vectors)

    def encode(vectors: Floats) -> Codes:
        packed = quantizer.compute_codes(vectors)
        return faiss.unpack_bitstrings(packed, task.levels, bits).astype(np.int32)

    def reconstruct(codes: Codes) -> Floats:
        return quantizer.decode(faiss.pack_bitstrings(codes.astype(np.int32), bits))

    return Learned(encode, reconstruct)


# ---- rectokens ---------------------------------------------------------------------------------------------


def rectokens_kmeans(task: Task) -> Learned:
    return _rectokens_kmeans(task, batch_size=256, epochs=1)


def rectokens_kmeans_config(task: Task) -> Learned:
    return _rectokens_kmeans(task, batch_size=640, epochs=20)


def rectokens_kmeans_whole(task: Task) -> Learned:
    return _rectokens_kmeans(task, batch_size=len(task.vectors), epochs=20)


def _rectokens_kmeans(task: Task, *, batch_size: int, epochs: int) -> Learned:
    import torch
    from rectokens.core.tokenizer import TokenSequence
    from rectokens.tokenizers.rq_kmeans import RQKMeansTokenizer

    torch.compiler.set_stance("force_eager")  # compiled, the same loop took twice as long on a CPU
    tokenizer = RQKMeansTokenizer(
        num_levels=task.levels, codebook_size=task.codebook_size, dim=task.width, seed=task.seed
    )
    for _ in range(task.epochs or epochs):
        for batch in _batches(task, batch_size, shuffled=epochs > 1):
            tokenizer.fit_step(batch)

    def reconstruct(codes: Codes) -> Floats:
        return tokenizer.decode(TokenSequence(codes=torch.from_numpy(codes.astype(np.int64)))).numpy()

    return Learned(lambda vectors: tokenizer.encode(torch.from_numpy(vectors)).codes.numpy(), reconstruct)


def rectokens_rqvae(task: Task) -> Learned:
    from torch.nn.functional import mse_loss

    return _rectokens_rqvae(task, hidden=256, epochs=100, batch_size=256, weight_decay=None, error=mse_loss)


def rectokens_rqvae_script(task: Task) -> Learned:
    def summed(decoded, batch):
        return (decoded - batch).square().sum(dim=1).mean()

    return _rectokens_rqvae(task, hidden=512, epochs=100, batch_size=640, weight_decay=1e-4, error=summed)


def _rectokens_rqvae(
    task: Task, *, hidden: int, epochs: int, batch_size: int, weight_decay: float | None, error: Callable
) -> Learned:
    import torch
    from rectokens.core.tokenizer import TokenSequence
    from rectokens.tokenizers.rqvae import RQVAETokenizer

    torch.compiler.set_stance("force_eager")
    torch.manual_seed(task.seed)
    tokenizer = RQVAETokenizer(
        input_dim=task.width,
        latent_dim=64,
        hidden_dim=hidden,
        num_levels=task.levels,
        codebook_size=task.codebook_size,
        commitment_weight=0.25,
        ema_decay=0.99,
    )
    if weight_decay is None:
        optimizer = torch.optim.Adam(tokenizer.parameters(), lr=1e-3)
    else:
        optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=1e-3, weight_decay=weight_decay)
    for _ in range(task.epochs or epochs):
        for batch in _batches(task, batch_size):
            out = tokenizer(batch)
            loss = error(out.recon, batch) + out.commitment_loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    tokenizer._fitted = True  # so says its README
    tokenizer.eval()

    def reconstruct(codes: Codes) -> Floats:
        return tokenizer.decode(TokenSequence(codes=torch.from_numpy(codes.astype(np.int64)))).numpy()

    return Learned(lambda vectors: tokenizer.encode(torch.from_numpy(vectors)).codes.numpy(), reconstruct)


# ---- semantic-id -------------------------------------------------------------------------------------------


def semantic_id_kmeans(task: Task) -> Learned:
    from semantic_id import RQKMeans

    model = RQKMeans(n_levels=task.levels, n_clusters=task.codebook_size, random_state=task.seed)
    model.fit(task.vectors)
    return Learned(model.encode, model.decode)


def semantic_id_rqvae(task: Task) -> Learned:
    learned = _semantic_id_rqvae(task)
    return Learned(
        learned.encode, learned.reconstruct
    )  # its default answer to collisions is a suffix outside the codes


def semantic_id_rqvae_better(task: Task) -> Learned:
    last_level_uniform = [0.0] * (task.levels - 1) + [0.003]
    return _semantic_id_rqvae(
        task, lr=1e-3, kmeans_init=True, sk_epsilons=last_level_uniform, sk_iters=50, verbose=True
    )


def _semantic_id_rqvae(task: Task, **choices: object) -> Learned:
    import torch
    from semantic_id import RQVAE, SemanticIdEngine
    from semantic_id.uniqueness.resolver import SinkhornResolver

    torch.manual_seed(task.seed)
    sizes = [task.codebook_size] * task.levels
    model = RQVAE(in_dim=task.width, num_emb_list=sizes, epochs=task.epochs or 100, **choices)
    model.fit(task.vectors)

    def unique(vectors: Floats, codes: Codes) -> Codes:
        engine = SemanticIdEngine(encoder=model, unique_resolver=SinkhornResolver(fallback_suffix=False))
        return np.array([[int(code) for code in name.split("-")] for name in engine.unique_ids(vectors)])

    return Learned(model.encode, model.decode, unique)


# ---- vector-quantize-pytorch -------------------------------------------------------------------------------


def vqp(task: Task) -> Learned:
    return _vqp(task, batch_size=1024)


def vqp_whole(task: Task) -> Learned:
    return _vqp(task, batch_size=len(task.vectors), threshold_ema_dead_code=2)


def _vqp(task: Task, *, batch_size: int, **choices: object) -> Learned:
    import torch
    from vector_quantize_pytorch import ResidualVQ

    torch.manual_seed(task.seed)
    model = ResidualVQ(
        dim=task.width,
        num_quantizers=task.levels,
        codebook_size=task.codebook_size,
        kmeans_init=True,
        kmeans_iters=10,
        **choices,
    )
    with torch.no_grad():
        for _ in range(task.epochs or 20):
            for batch in _batches(task, batch_size):
                model(batch[None])
    model.eval()

    @torch.no_grad()
    def encode(vectors: Floats) -> Codes:
        pieces = torch.from_numpy(vectors).split(4096)  # its best block size on a CPU; one call is 3 times slower
        return np.concatenate([model(piece[None])[1][0].numpy() for piece in pieces])

    @torch.no_grad()
    def reconstruct(codes: Codes) -> Floats:
        return model.get_output_from_indices(torch.from_numpy(codes.astype(np.int64))[None])[0].numpy()

    return Learned(encode, reconstruct)


def _batches(task: Task, batch_size: int, *, shuffled: bool = True) -> Iterator:
    """One pass over the vectors as tensors [B, D], in an order that torch's seed decides."""
    import torch

    rows = torch.from_numpy(task.vectors)
    order = torch.randperm(len(rows)) if shuffled else torch.arange(len(rows))
    for batch in order.split(batch_size):
        yield rows[batch]


# ---- the rows, in order ------------------------------------------------------------------------------------

_SEMID = ("semid.train.rqvae_training", "semid.assign.unique", "sklearn.decomposition", "scipy.sparse.csgraph")
_FAISS = (("faiss",), "faiss-cpu")
_KMEANS = (("rectokens.tokenizers.rq_kmeans",), "rectokens==0.2.2")
_RQVAE = (("rectokens.tokenizers.rqvae",), "rectokens==0.2.2")
_SEMANTIC_ID = (("semantic_id.uniqueness.resolver",), "semantic-id==0.2.5")
_VQP = (("vector_quantize_pytorch",), "vector-quantize-pytorch")

RECIPES = {
    "semid-rqvae": Recipe("**semid** RQ-VAE", "default", _SEMID, "semid", semid_rqvae),
    "semid-rqkmeans": Recipe("**semid** residual k-means", "default", _SEMID, "semid", semid_rqkmeans),
    "faiss-plain": Recipe("faiss RQ", "beam 1, plain training", *_FAISS, faiss_plain),
    "faiss": Recipe("faiss RQ", "beam 1, its default training (progressive widths)", *_FAISS, faiss_progressive),
    "faiss-beam": Recipe("faiss RQ", "all its defaults: beam 5, progressive widths", *_FAISS, faiss_beam),
    "rectokens-kmeans": Recipe("rectokens RQ-KMeans", "README: one pass, batches of 256", *_KMEANS, rectokens_kmeans),
    "rectokens-kmeans-config": Recipe(
        "rectokens RQ-KMeans", "its Beauty configuration: 20 passes, batches of 640", *_KMEANS, rectokens_kmeans_config
    ),
    "rectokens-kmeans-whole": Recipe(
        "rectokens RQ-KMeans", "better: the whole catalog 20 times", *_KMEANS, rectokens_kmeans_whole
    ),
    "rectokens-rqvae": Recipe(
        "rectokens RQ-VAE", "README: 64-d latent, hidden 256, Adam; 100 epochs", *_RQVAE, rectokens_rqvae
    ),
    "rectokens-rqvae-script": Recipe(
        "rectokens RQ-VAE",
        "its example script: hidden 512, AdamW, summed error; 100 epochs",
        *_RQVAE,
        rectokens_rqvae_script,
    ),
    "semantic-id-kmeans": Recipe("semantic-id RQKMeans", "default: 10 starts", *_SEMANTIC_ID, semantic_id_kmeans),
    "semantic-id-rqvae": Recipe("semantic-id RQVAE", "README: default", *_SEMANTIC_ID, semantic_id_rqvae),
    "semantic-id-rqvae-better": Recipe(
        "semantic-id RQVAE",
        "better: lr 1e-3, k-means start, uniform last level, verbose (else it keeps epoch 1)",
        *_SEMANTIC_ID,
        semantic_id_rqvae_better,
    ),
    "vqp": Recipe(
        "vector-quantize-pytorch ResidualVQ", "README: k-means start; 20 passes, batches of 1024", *_VQP, vqp
    ),
    "vqp-whole": Recipe(
        "vector-quantize-pytorch ResidualVQ",
        "better: the whole catalog 20 times, dead codes replaced",
        *_VQP,
        vqp_whole,
    ),
}
