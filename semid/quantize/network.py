"""Encoder and decoder networks as plain arrays: a linear path plus a ReLU MLP.

    y(x) = skip(x) + mlp(x),    mlp(x) = W_n relu(... relu(W_1 x + b_1) ...) + b_n

Either path may be absent. The encoder's layers are exact (`grid.ExactLayer`), because codes depend on them; the
decoder's are float32, because only reconstructions do. Not here: training (`semid/train/rqvae.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from semid.quantize.grid import LATENT_LIMIT, ExactLayer, power_of_two_scale, snap
from semid.runtime.distributed import all_max

__all__ = ["Decoder", "Encoder", "FloatLayer", "Network", "grid_scales"]

ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class FloatLayer:
    """An affine map in floats: weight [in, out], bias [out]; float32, but float64 on the way to the grid."""

    weight: npt.NDArray[np.floating]
    bias: npt.NDArray[np.floating]

    @classmethod
    def from_float(cls, weight: npt.NDArray[np.floating], bias: npt.NDArray[np.floating]) -> FloatLayer:
        """Round a layer to float32."""
        return cls(np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32))

    def __call__(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Map rows [N, in] to [N, out]."""
        return x @ self.weight + self.bias


Layer = TypeVar("Layer", ExactLayer, FloatLayer)


@dataclass(frozen=True)
class Network(Generic[Layer]):
    """A linear path `skip` and an MLP `mlp` (ReLU between its layers), added up.

    Layers map rows and have `weight` [in, out] and `bias` [out]: all exact, or all float.
    """

    skip: Layer | None
    mlp: tuple[Layer, ...] = ()

    @property
    def dims(self) -> tuple[int, int]:
        """(input width, output width)."""
        first, last = (self.skip, self.skip) if self.skip is not None else (self.mlp[0], self.mlp[-1])
        return first.weight.shape[0], last.weight.shape[1]

    def __call__(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Map rows [N, in] to [N, out]."""
        if self.skip is None:
            return self._branch(x)
        return self.skip(x) + self._branch(x) if self.mlp else self.skip(x)

    def _branch(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        for layer in self.mlp[:-1]:
            x = np.maximum(layer(x), 0)
        return self.mlp[-1](x)

    def arrays(self, prefix: str) -> dict[str, npt.NDArray]:
        """Return the layers as named arrays, for safetensors."""
        named = {} if self.skip is None else _layer_arrays(f"{prefix}.skip", self.skip)
        for number, layer in enumerate(self.mlp):
            named |= _layer_arrays(f"{prefix}.mlp.{number}", layer)
        return named

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray], prefix: str, kind: type[Layer]) -> Network[Layer]:
        """Return the network that `arrays` named, with layers of this kind; KeyError if an array is missing."""
        skip = _layer_from_arrays(arrays, f"{prefix}.skip", kind) if f"{prefix}.skip.weight" in arrays else None
        mlp: list[Layer] = []
        while f"{prefix}.mlp.{len(mlp)}.weight" in arrays:
            mlp.append(_layer_from_arrays(arrays, f"{prefix}.mlp.{len(mlp)}", kind))
        return Network(skip, tuple(mlp))


def _layer_arrays(name: str, layer: ExactLayer | FloatLayer) -> dict[str, npt.NDArray]:
    arrays: dict[str, npt.NDArray] = {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    if isinstance(layer, ExactLayer):
        arrays[f"{name}.exponent"] = np.array([layer.exponent], np.int64)
    return arrays


def _layer_from_arrays(arrays: Mapping[str, npt.NDArray], name: str, kind: type[Layer]) -> Layer:
    weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
    if issubclass(kind, ExactLayer):
        return kind(weight, bias, int(arrays[f"{name}.exponent"][0]))
    return kind(weight, bias)


def grid_scales(network: Network[FloatLayer], sample: npt.NDArray[np.floating]) -> list[float]:
    """Return powers of two that make the input, each hidden layer and the latents of a float network fill the grid.

    `sample` [n, D] shows the ranges; each gets a factor of two of headroom for items yet to come. Neither of the two
    paths may leave the range, nor their sum.
    """
    peaks = np.zeros(1 + max(1, len(network.mlp)))
    for start in range(0, len(sample), ROWS_AT_ONCE):
        rows = np.asarray(sample[start : start + ROWS_AT_ONCE], np.float64)
        hidden: npt.NDArray[np.floating] = rows
        ends = [] if network.skip is None else [network.skip(rows)]
        stages: list[npt.NDArray[np.floating]] = [rows]
        for number, layer in enumerate(network.mlp, 1):
            hidden = layer(hidden)
            if number < len(network.mlp):
                hidden = np.maximum(hidden, 0)
                stages.append(hidden)
        if network.mlp:
            ends.append(hidden)
        stages.append(np.stack([*ends, sum(ends)]))
        peaks = np.maximum(peaks, [np.max(np.abs(stage)) for stage in stages])
    return [power_of_two_scale(peak, LATENT_LIMIT / 2) for peak in all_max(peaks)]


@dataclass(frozen=True)
class Encoder:
    """Map vectors to latents on the grid, the same bits everywhere.

    Parameters
    ----------
    scale : float
        Power of two that brings the vectors into the grid's range.
    network : Network of exact layers
        D -> d.
    """

    scale: float
    network: Network[ExactLayer]

    @classmethod
    def from_float(cls, network: Network[FloatLayer], sample: npt.NDArray[np.floating]) -> Encoder:
        """Put a trained float network on the grid, every layer scaled to fill its range; see `grid_scales`."""
        return cls.scaled(network, grid_scales(network, sample))

    @classmethod
    def scaled(cls, network: Network[FloatLayer], scales: Sequence[float]) -> Encoder:
        """Put a float network on the grid, with given powers of two for its input, hidden layers and latents.

        ReLU commutes with a power of two, so scaling a layer up and the next one down changes only the rounding. The
        latents come out multiplied by `scales[-1]`.
        """
        factors = [there / here for here, there in itertools.pairwise(scales)]
        layers = [
            ExactLayer.from_float(layer.weight * factor, layer.bias * scale)
            for layer, factor, scale in zip(network.mlp, factors, scales[1:], strict=False)
        ]
        if network.skip is None:
            return cls(scales[0], Network(None, tuple(layers)))
        weight, bias = network.skip.weight * (scales[-1] / scales[0]), network.skip.bias * scales[-1]
        return cls(scales[0], Network(ExactLayer.from_float(weight, bias), tuple(layers)))

    def __call__(
        self, vectors: npt.NDArray[np.floating], *, advance: Callable[[int], object] | None = None
    ) -> npt.NDArray[np.float64]:
        """Return the latents of vectors [N, D], float64 [N, d]; `advance` is called with the number of rows done."""
        latents = np.empty((len(vectors), self.network.dims[1]))
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            rows = np.asarray(vectors[start : start + ROWS_AT_ONCE], np.float64)
            latents[start : start + ROWS_AT_ONCE] = snap(self.network(snap(rows * self.scale)))
            if advance is not None:
                advance(len(rows))
        return latents


@dataclass(frozen=True)
class Decoder:
    """Map codes to vectors in the units of the input: a network on the quantized latent, plus a table per level.

    The tables [K_l, D] hold, per code, what least squares adds to the network's output: an additive quantizer's decoder
    (Babenko and Lempitsky 2014) on top of the RQ-VAE's. They may be absent.
    """

    network: Network[FloatLayer]
    tables: tuple[npt.NDArray[np.float32], ...] = ()

    def __call__(self, quantized: npt.NDArray[np.floating], codes: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return the reconstructions float32 [N, D] of quantized latents [N, d] and their codes [N, L]."""
        vectors = np.asarray(self.network(np.asarray(quantized, np.float32)), np.float32)
        for level, table in enumerate(self.tables):
            vectors = vectors + table[codes[:, level]]
        return vectors

    def arrays(self) -> dict[str, npt.NDArray]:
        """Return the network and the tables as named arrays."""
        tables = {f"decoder.table.{level}": table for level, table in enumerate(self.tables)}
        return self.network.arrays("decoder") | tables

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray]) -> Decoder:
        """Return the decoder that `arrays` named."""
        tables: list[npt.NDArray[np.float32]] = []
        while f"decoder.table.{len(tables)}" in arrays:
            tables.append(arrays[f"decoder.table.{len(tables)}"])
        return cls(Network.from_arrays(arrays, "decoder", FloatLayer), tuple(tables))
