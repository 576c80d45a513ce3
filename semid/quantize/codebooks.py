"""Codebooks: what every learner returns, and all that is needed to encode vectors.

    vector [D] --encoder--> latent [d] --greedy residual assignment--> codes [L]
    codes [L] --sum of centroids--> quantized latent [d] --decoder--> reconstruction [D]

Arrays only; NumPy suffices. Other backends do the same arithmetic on a torch device and give equal codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError
from semid.kernels.dispatch import choose
from semid.quantize.beam import beam_codes
from semid.quantize.grid import ExactLayer, snap_centroids
from semid.quantize.network import Decoder, Encoder, FloatLayer, Network, grid_scales
from semid.quantize.residual import residual_codes

__all__ = ["Codebooks", "chosen_backend"]

Advance = Callable[[int], object]


@dataclass(frozen=True, repr=False)
class Codebooks:
    """L levels of centroids in a latent space, with the maps into it and back.

    Parameters
    ----------
    levels : L arrays float32 [K_l, d]
        Centroids, on the centroid grid.
    encoder : Encoder
        Vectors [N, D] -> latents [N, d].
    decoder : Decoder
        Quantized latents [N, d] and codes -> vectors [N, D].
    biases : per level float64 [K_l] or None; or empty
        Added to the scores: the prices of a balanced assignment.
    """

    levels: tuple[npt.NDArray[np.float32], ...]
    encoder: Encoder
    decoder: Decoder
    biases: tuple[npt.NDArray[np.float64] | None, ...] = field(default=())

    def __repr__(self) -> str:
        return f"Codebooks({'x'.join(map(str, self.sizes))} codes, {self.input_dim} -> {self.latent_dim} dims)"

    @classmethod
    def from_float(
        cls,
        encoder: Network[FloatLayer],
        levels: Sequence[npt.NDArray[np.floating]],
        decoder: Network[FloatLayer],
        sample: npt.NDArray[np.floating],
    ) -> Codebooks:
        """Put trained networks and centroids on the grid; `sample` [n, D] shows the ranges.

        The encoder stretches the latents by a power of two; centroids and decoder follow.
        """
        scales = grid_scales(encoder, sample)
        return cls(
            tuple(snap_centroids(centroids * scales[-1]) for centroids in levels),
            Encoder.scaled(encoder, scales),
            Decoder(_scaled_input(decoder, 1 / scales[-1])),
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """K_l of each level."""
        return tuple(len(centroids) for centroids in self.levels)

    @property
    def input_dim(self) -> int:
        """D, the width of the vectors."""
        return self.encoder.network.dims[0]

    @property
    def latent_dim(self) -> int:
        """d, the width of the latents."""
        return self.levels[0].shape[1]

    def latents(self, vectors: npt.NDArray[np.floating], *, advance: Advance | None = None) -> npt.NDArray[np.float64]:
        """Return the latents of vectors [N, D], float64 [N, d].

        Raises ConfigError if the vectors have another width than those that the codebooks were learned from.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.input_dim:
            raise ConfigError(
                f"vectors.shape={vectors.shape} should be (N, {self.input_dim}): "
                "embed the items with the encoder that the codebooks were learned with."
            )
        return self.encoder(vectors, advance=advance)

    def encode(
        self,
        vectors: npt.NDArray[np.floating],
        *,
        backend: str = "auto",
        device: str = "cpu",
        beam: int = 1,
        advance: Advance | None = None,
    ) -> npt.NDArray[np.int32]:
        """Return the codes of vectors [N, D], int32 [N, L]; they may collide. Every backend gives equal codes.

        Parameters
        ----------
        vectors : float [N, D]
        backend : "auto", "numpy", "torch" or "triton"
            NumPy runs on a CPU, Triton on a GPU; "auto" chooses (`semid.kernels.dispatch`).
        device : str
            Device of torch.
        beam : int
            Prefixes kept at each level (`beam.beam_codes`); 1 gives the greedy codes.
        advance : callable, optional
            Called with the number of rows done.
        """
        chosen = chosen_backend(backend, device)
        if chosen == "numpy" or beam > 1:
            latents = self.latents(vectors)
            return self.encode_latents(latents, backend=backend, device=device, beam=beam, advance=advance)
        from semid.quantize.residual_torch import encode

        self.latents(vectors[:0])  # raises for a wrong width
        return encode(
            self.encoder, self.levels, self.biases, vectors, device=device, fused=chosen == "triton", advance=advance
        )

    def encode_latents(
        self,
        latents: npt.NDArray[np.float64],
        *,
        backend: str = "auto",
        device: str = "cpu",
        beam: int = 1,
        advance: Advance | None = None,
    ) -> npt.NDArray[np.int32]:
        """Return the codes of latents on the grid, float64 [N, d]; otherwise as `encode`. Beams run on the CPU."""
        if beam > 1:
            return beam_codes(latents, self.levels, beam, biases=self.biases or None, advance=advance)
        chosen = chosen_backend(backend, device)
        if chosen == "numpy":
            return residual_codes(latents, self.levels, biases=self.biases or None, advance=advance)
        from semid.quantize.residual_torch import encode_latents

        return encode_latents(
            self.levels, self.biases, latents, device=device, fused=chosen == "triton", advance=advance
        )

    def quantized(self, codes: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """Return the sum of the chosen centroids for codes [N, L], float64 [N, d]."""
        total = np.zeros((len(codes), self.latent_dim))
        for level, centroids in enumerate(self.levels):
            total += centroids[codes[:, level]]
        return total

    def reconstruct(self, codes: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return the approximations of the vectors for codes [N, L], float32 [N, D]."""
        return self.decoder(self.quantized(codes), codes)

    def arrays(self) -> dict[str, npt.NDArray]:
        """Return everything as named arrays, for safetensors."""
        named: dict[str, npt.NDArray] = {"encoder.scale": np.array([self.encoder.scale])}
        named |= self.encoder.network.arrays("encoder")
        named |= self.decoder.arrays()
        for level, centroids in enumerate(self.levels):
            named[f"codebook.{level}"] = centroids
        for level, bias in enumerate(self.biases):
            if bias is not None:
                named[f"bias.{level}"] = bias
        return named

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray]) -> Codebooks:
        """Return the codebooks that `arrays` named; KeyError if one is missing."""
        levels: list[npt.NDArray[np.float32]] = []
        while f"codebook.{len(levels)}" in arrays:
            levels.append(arrays[f"codebook.{len(levels)}"])
        encoder = Encoder(float(arrays["encoder.scale"][0]), Network.from_arrays(arrays, "encoder", ExactLayer))
        biases = tuple(arrays.get(f"bias.{level}") for level in range(len(levels)))
        return cls(
            tuple(levels),
            encoder,
            Decoder.from_arrays(arrays),
            biases if any(bias is not None for bias in biases) else (),
        )


def chosen_backend(backend: str, device: str) -> str:
    """Return the backend that `semid.kernels.dispatch.choose` picks; ConfigError if the named one cannot run."""
    try:
        return choose(backend, device).backend
    except (ValueError, RuntimeError) as error:
        raise ConfigError(str(error)) from None


def _scaled_input(network: Network[FloatLayer], factor: float) -> Network[FloatLayer]:
    """Return the network that maps x to `network(x * factor)`."""

    def first(layer: FloatLayer) -> FloatLayer:
        return FloatLayer.from_float(layer.weight * factor, layer.bias)

    skip = None if network.skip is None else first(network.skip)
    return Network(skip, (*map(first, network.mlp[:1]), *network.mlp[1:]))
