"""The settings of a fit, in one frozen object that is stored in the artifact.

Options of `semid fit` have the names of the fields. None means the default of the method.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

from semid.errors import ConfigError
from semid.runtime.checks import check_choice

__all__ = ["Assign", "Method", "SemanticIDConfig", "Uniform"]

Method = Literal["rqvae", "rqkmeans", "lc-rec"]
Uniform = Literal["training", "catalog", "off"]
Assign = Literal["local", "global"]
Pooling = Literal["auto", "mean", "last", "eos"]

WHOLE = {  # name -> lowest, highest
    "levels": (1, math.inf),
    "codebook_size": (1, math.inf),
    "dim": (1, math.inf),
    "epochs": (0, math.inf),
    "encode_beam": (1, 256),
    "seed": (0, 2**32 - 1),  # what NumPy, scikit-learn and torch all take
}
OPTIONAL = ("levels", "dim", "epochs", "text")
STRINGS = ("encoder", "prompt", "template", "device")
CHOICES = {"method": Method, "uniform": Uniform, "assign": Assign, "pooling": Pooling}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # LC-Rec's published recipe: see train/lcrec.py for the parts that are not choices here.
    "lc-rec": {"method": "lc-rec", "levels": 4, "codebook_size": 256, "dim": 32, "seed": 2024},
}


@dataclass(frozen=True, kw_only=True)
class SemanticIDConfig:
    """Hold the settings of a fit; ConfigError for values that do not fit or do not go together.

    >>> SemanticIDConfig(codebook_size=[64, 256]).sizes
    (64, 256)
    >>> SemanticIDConfig.from_dict({"levles": 3})
    Traceback (most recent call last):
    semid.errors.ConfigError: 'levles' is no setting of semid. Did you mean 'levels'?
    """

    encoder: str = "lexical"  # "lexical", or a model's folder or hub id; not used with ready embeddings
    pooling: Pooling = "auto"  # of a language model's hidden states; auto: as the model says, else mean
    prompt: str = ""  # text to prepend to every item's text, for encoders that expect one
    text: tuple[str, ...] | None = None  # text fields, in order; None: detected
    method: Method = "rqvae"
    levels: int | None = None  # L, codes per item; None: 4, or as many as codebook_size names
    codebook_size: int | tuple[int, ...] = 256  # K, one for all levels or one per level
    dim: int | None = None  # d, dimensions of the latent space
    epochs: int | None = None  # training epochs
    uniform: Uniform = "training"  # when to balance the last level's codes (uniform semantic mapping)
    encode_beam: int = 1  # beam width of quantization; 1: greedy, the nearest code at each level
    assign: Assign = "local"  # resolve collisions within the item's prefix, or across all prefixes
    template: str = "onerec"  # of the tokens: a name, or a pattern such as "<{letter}_{code}>"
    store_text: bool = True  # keep the items' text in the artifact, for `semid show` and token initialization
    seed: int = 0
    device: str = "auto"  # to train on

    def __post_init__(self) -> None:
        for name, kind in CHOICES.items():
            value, allowed = getattr(self, name), get_args(kind)
            check_choice(name, value, allowed)
        if isinstance(self.codebook_size, list):
            object.__setattr__(self, "codebook_size", tuple(self.codebook_size))
        if isinstance(self.text, (list, str)):
            object.__setattr__(self, "text", tuple(self.text.split(",") if isinstance(self.text, str) else self.text))
        self._check_types()
        if self.text is not None:
            object.__setattr__(self, "text", tuple(name.strip() for name in self.text))
        if self.method == "lc-rec" and self.uniform == "catalog":
            raise ConfigError("uniform='catalog' is no part of LC-Rec's recipe. Use method='rqvae'.")
        _ = self.sizes

    def _check_types(self) -> None:
        """ConfigError for a value of a wrong type or range: JSON files hold anything."""
        for name, (lowest, highest) in WHOLE.items():
            value = getattr(self, name)
            if value is None and name in OPTIONAL:
                continue
            for number in value if name == "codebook_size" and isinstance(value, tuple) and value else (value,):
                if type(number) is not int or not lowest <= number <= highest:
                    bound = f" to {highest}" if math.isfinite(highest) else ""
                    raise ConfigError(f"{name}={value!r} should be a whole number from {lowest}{bound}.")
        for name in STRINGS:
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{name}={getattr(self, name)!r} should be a string.")
        if not self.encoder:
            raise ConfigError("encoder='' should be lexical, or a model's folder or hub id.")
        if not isinstance(self.store_text, bool):
            raise ConfigError(f"store_text={self.store_text!r} should be true or false.")
        fields = self.text
        if fields is not None and not (isinstance(fields, tuple) and all(isinstance(name, str) for name in fields)):
            raise ConfigError(f"text={fields!r} should be a list of field names.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each level."""
        from semid.quantize.checks import check_sizes

        levels = self.levels
        if levels is None:
            levels = 4 if isinstance(self.codebook_size, int) else len(self.codebook_size)
        return check_sizes(self.codebook_size, levels)

    @classmethod
    def preset(cls, name: str, /, **changes: Any) -> SemanticIDConfig:
        """Return the settings of a named recipe ("default", "lc-rec"), with changes."""
        check_choice("preset", name, PRESETS)
        return cls.from_dict(PRESETS[name] | changes)

    @classmethod
    def from_dict(cls, choices: dict[str, Any]) -> SemanticIDConfig:
        """Return settings from JSON data; ConfigError with near matches for an unknown key."""
        check_names(cls, choices, no="setting of semid", listed="It has")
        return cls(**choices)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON data; the inverse of `from_dict`."""
        return as_json(self)


def check_names(cls: type, choices: Iterable[str], *, no: str, listed: str) -> None:
    """Raise ConfigError, with near matches, for the first of the choices that is no field of the dataclass."""
    names = [field.name for field in dataclasses.fields(cls)]
    for key in choices:
        if key not in names:
            near = get_close_matches(key, names, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"{listed}: {', '.join(names)}."
            raise ConfigError(f"{key!r} is no {no}. {hint}")


def as_json(choices: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON data: tuples become lists."""
    values = dataclasses.asdict(choices)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
