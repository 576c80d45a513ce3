"""Settings of `adapt`: what is learned from, what is trained, and how long."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from semid.data.splits import Split
from semid.encoders.language_models import Pooling
from semid.errors import ConfigError
from semid.runtime.checks import check_choice

__all__ = ["RAT", "AdaptConfig", "Learn", "Loss", "Shape", "Train"]

Learn = Literal["together", "attributes"]
Train = Literal["adapter", "lora", "all"]
Shape = Literal["mlp", "linear"]
Loss = Literal["infonce", "llmemb", "llmemb-detached"]

COUNTS = ("steps", "batch_size", "dim", "hidden", "max_length", "lora_rank", "lora_alpha")
# Steps, pairs (for RAT: users) in a batch, learning rate
ADAPTER, LANGUAGE_MODEL, RAT = (300, 512, 3e-3), (1000, 128, 1e-4), (2000, 128, 1e-3)


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """Settings of `adapt`.

    Parameters
    ----------
    learn : tuple of "together", "attributes"
        What should be near each other: items that users met near each other, two views of one item that each lack some
        of its attributes, or both.
    train : {"adapter", "lora", "all"}
        What learns: layers on top of the frozen model's vectors, low-rank changes of the model (merged at the end), or
        all weights of the model.
    adapter : {"linear", "mlp"}
        Shape of the layers: one matrix, or a matrix beside an MLP with one hidden layer, which takes three times as
        long and was not better where both were measured (docs/benchmarks.md).
    loss : {"infonce", "llmemb", "llmemb-detached"}
        InfoNCE in both directions; LLMEmb's loss with soft targets, as published; the same without a gradient through
        the targets.
    rat : bool
        Train the adapter inside a sequential recommender, as LLMEmb does in its second stage.
    split : {"leave-one-out", "own", "all"}
        Which interactions are held out; see `training_interactions`.
    steps, batch_size : int, optional
        Training steps, and pairs in a batch. Default: 300 of 512 pairs for an adapter, 1,000 of 128 for a language
        model, 2,000 of 128 users for each of the two recommenders of `rat`.
    rate : float, optional
        Learning rate. Default: 3e-3 for an adapter, 1e-4 for a language model.
    temperature : float
        Of the cosines in InfoNCE.
    attribute_dropout : float
        Share of an item's attributes that a view lacks; at least one stays.
    dim : int, optional
        Dims of the new vectors. Default: those of the model.
    hidden : int
        Width of the MLP's hidden layer.
    dropout : float
        Of the hidden layer while the adapter learns.
    pooling : {"auto", "mean", "last", "eos"}
        Of a model that does not describe its own; see `NeuralEncoder`.
    max_length : int
        Cap on the tokens of a text.
    lora_rank, lora_alpha : int
        Rank and scale of low-rank changes.
    bfloat16 : bool
        Train a language model in bfloat16 autocast.
    gradient_checkpointing : bool
        Compute activations twice instead of keeping them, which takes less memory.
    seed : int
        Of everything random.
    device : str
        "auto" or a torch device.

    >>> AdaptConfig().training()
    (300, 512, 0.003)
    >>> AdaptConfig(train="lora", steps=200).training()
    (200, 128, 0.0001)
    >>> AdaptConfig(learn=())
    Traceback (most recent call last):
    semid.errors.ConfigError: learn=() should name together, attributes, or both.
    """

    learn: tuple[Learn, ...] = ("together",)
    train: Train = "adapter"
    adapter: Shape = "linear"
    loss: Loss = "infonce"
    rat: bool = False
    split: Split = "leave-one-out"
    steps: int | None = None
    batch_size: int | None = None
    rate: float | None = None
    temperature: float = 0.05
    attribute_dropout: float = 0.4
    dim: int | None = None
    hidden: int = 1024
    dropout: float = 0.3
    pooling: Pooling = "auto"
    max_length: int = 512
    lora_rank: int = 8
    lora_alpha: int = 32
    bfloat16: bool = False
    gradient_checkpointing: bool = False
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        learn = (self.learn,) if isinstance(self.learn, str) else tuple(self.learn)
        object.__setattr__(self, "learn", tuple(known for known in get_args(Learn) if known in learn))
        for chosen in learn:
            check_choice("learn", chosen, get_args(Learn))
        if not learn:
            raise ConfigError("learn=() should name together, attributes, or both.")
        choices = {"train": Train, "adapter": Shape, "loss": Loss, "split": Split, "pooling": Pooling}
        for name, allowed in choices.items():
            check_choice(name, getattr(self, name), get_args(allowed))
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 1 <= value < 2**31):
                raise ConfigError(f"{name}={value!r} should be an integer of 1 or more.")
        if type(self.seed) is not int or not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed={self.seed!r} should be an integer of 0 or more.")
        if self.batch_size == 1:
            raise ConfigError("batch_size=1 should be 2 or more: a pair is told apart from the others of its batch.")
        for name, value, top in (("rate", self.rate, 1.0), ("temperature", self.temperature, 100.0)):
            if value is not None and not 0 < value <= top:
                raise ConfigError(f"{name}={value!r} should be above 0 and at most {top:g}.")
        for name in ("attribute_dropout", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)!r} should be 0 or more and below 1.")
        if self.train != "adapter" and self.dim is not None and not self.rat:
            raise ConfigError(f"dim={self.dim}: train={self.train!r} keeps the model's dims. Leave dim out.")

    def training(self) -> tuple[int, int, float]:
        """Return (steps, pairs in a batch, learning rate), with the defaults of what is trained."""
        steps, batch_size, rate = LANGUAGE_MODEL if self.train != "adapter" else RAT if self.rat else ADAPTER
        return self.steps or steps, self.batch_size or batch_size, self.rate or rate

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON data, with the defaults of what is trained; not the device, which may differ."""
        steps, batch_size, rate = self.training()
        data = asdict(self) | {"steps": steps, "batch_size": batch_size, "rate": rate, "learn": list(self.learn)}
        del data["device"]
        return data
