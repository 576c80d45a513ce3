"""Every choice of a fit, in one frozen object that goes into the artifact and comes back out of it.

Options of `semid fit` carry the names of the fields. None means "the learner's own default".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

from semid.errors import ConfigError

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
    """The choices of a fit.

    >>> SemanticIDConfig(codebook_size=[64, 256]).sizes
    (64, 256)
    >>> SemanticIDConfig.from_dict({"levles": 3})
    Traceback (most recent call last):
    semid.errors.ConfigError: 'levles' is no setting of semid. Did you mean 'levels'?
    """

    encoder: str = "lexical"  # "lexical", or a model's folder or hub id; not used with ready embeddings
    pooling: Pooling = "auto"  # of a model's token vectors, where the model does not say itself
    prompt: str = ""  # put before every text that goes into a model
    text: tuple[str, ...] | None = None  # the text fields, in order; None: found
    method: Method = "rqvae"
    levels: int | None = None  # L, codes per item; None: 4, or as many as codebook_size names
    codebook_size: int | tuple[int, ...] = 256  # K, one for all levels or one per level
    dim: int | None = None  # d, width of the latents
    epochs: int | None = None  # of training
    uniform: Uniform = "training"  # where the last level's codes are balanced (uniform semantic mapping)
    encode_beam: int = 1  # prefixes kept at each level when an item gets its codes; 1: the nearest code each time
    assign: Assign = "local"  # collisions: keep prefixes, or let them move for less distortion
    template: str = "onerec"  # how a token is written: a name, or a pattern such as "<{letter}_{code}>"
    store_text: bool = True  # keep the items' text in the artifact, for `semid show` and token initialization
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, kind in CHOICES.items():
            value, allowed = getattr(self, name), get_args(kind)
            if value not in allowed:
                raise ConfigError(f"{name}={value!r} should be one of {', '.join(allowed)}.")
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

        one = isinstance(self.codebook_size, int)
        levels = self.levels if self.levels is not None else (4 if one else len(self.codebook_size))
        return check_sizes(self.codebook_size, levels)

    @classmethod
    def preset(cls, name: str, /, **changes: Any) -> SemanticIDConfig:
        """A named recipe ("default", "lc-rec"), with changes."""
        if name not in PRESETS:
            raise ConfigError(f"preset={name!r} should be one of {', '.join(PRESETS)}.")
        return cls.from_dict(PRESETS[name] | changes)

    @classmethod
    def from_dict(cls, choices: dict[str, Any]) -> SemanticIDConfig:
        """From JSON data; an unknown key is an error that names near matches."""
        check_names(cls, choices, no="setting of semid", listed="It has")
        return cls(**choices)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data; the inverse of `from_dict`."""
        return as_json(self)


def check_names(cls: type, choices: Iterable[str], *, no: str, listed: str) -> None:
    """ConfigError, with near matches, for the first of the choices that is no field of the dataclass."""
    names = [field.name for field in dataclasses.fields(cls)]
    for key in choices:
        if key not in names:
            near = get_close_matches(key, names, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"{listed}: {', '.join(names)}."
            raise ConfigError(f"{key!r} is no {no}. {hint}")


def as_json(choices: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON data: tuples become lists."""
    values = dataclasses.asdict(choices)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
