"""What transformers calls its arguments and marks, from the lowest supported version to the newest.

The one file to change when a release renames something: everybody else asks here by meaning, not by name. Names are
read off each forward's own signature, so that a model class written for an older release keeps working in a newer one.

The cache of keys and values: `cache` from 5.24 on, in every forward; before, `past_key_values`, and `cache_params` in
Mamba and its kin. Newer releases accept the old names with a FutureWarning until 5.40.
"""

from __future__ import annotations

import inspect

from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from semid.errors import ConfigError

__all__ = [
    "argument_names",
    "attention_kind",
    "cache_argument",
    "is_stateful",
    "takes_cache",
    "takes_positions",
]

CACHE_NAMES = ("cache", "past_key_values", "cache_params")  # newest first


def argument_names(module: nn.Module) -> frozenset[str]:
    """The names of the arguments of a module's forward; a forward with **kwargs takes those of its base class too."""
    names: set[str] = set()
    # Asked of the class: accelerate and others put a wrapper without names on the instance.
    for kind in type(module).__mro__:
        if "forward" not in vars(kind):
            continue
        arguments = inspect.signature(kind.forward).parameters
        own = set(arguments)
        names |= own if names.isdisjoint(CACHE_NAMES) else own.difference(CACHE_NAMES)  # one name for one cache
        if not any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values()):
            break
    return frozenset(names)


def cache_argument(arguments: frozenset[str], cache: Cache) -> dict[str, Cache]:
    """The cache under the name that a forward with these `arguments` gives it.

    Raises
    ------
    ConfigError
        The forward takes no cache, so it cannot be continued.

    >>> cache_argument(frozenset({"input_ids", "past_key_values"}), "a cache")
    {'past_key_values': 'a cache'}
    """
    for name in CACHE_NAMES:
        if name in arguments:
            return {name: cache}
    raise ConfigError(f"the model's forward takes no cache ({', '.join(CACHE_NAMES)}), so it cannot be continued.")


def takes_cache(arguments: frozenset[str]) -> bool:
    """Does a forward with these arguments take a cache?"""
    return not arguments.isdisjoint(CACHE_NAMES)


def takes_positions(arguments: frozenset[str]) -> bool:
    """Does a forward with these arguments take the position of each token?"""
    return "position_ids" in arguments


def is_stateful(model: PreTrainedModel) -> bool:
    """Do layers keep one running state instead of a row for each token (Mamba, and hybrids with it)?"""
    return bool(model._is_stateful)


def attention_kind(model: PreTrainedModel) -> str:
    """The attention implementation of the decoder: "sdpa", "eager", "flash_attention_2", ..."""
    return str(model.config.get_text_config(decoder=True)._attn_implementation)
