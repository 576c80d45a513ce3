"""What transformers calls its arguments and attributes, from the lowest supported version to the newest.

This is the one file to change when a release renames something; all others ask here by meaning, not by name. Names are
read from each forward's own signature, so a model class written for an older release keeps working in a newer one.

The cache of keys and values is called `cache` from 5.24 on. Before, it was `past_key_values`, and `cache_params` in
Mamba and similar models. Newer releases accept the old names with a FutureWarning until 5.40.
"""

from __future__ import annotations

import inspect

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from semid.errors import ConfigError

__all__ = [
    "argument_names",
    "attention_kind",
    "cache_argument",
    "embedding_rows",
    "is_stateful",
    "takes_cache",
    "takes_positions",
]

CACHE_NAMES = ("cache", "past_key_values", "cache_params")  # newest first


def argument_names(module: nn.Module) -> frozenset[str]:
    """Return the argument names of a module's forward; one with **kwargs takes those of its base class too."""
    names: set[str] = set()
    # Read from the class: accelerate and others put a wrapper without names on the instance.
    for kind in type(module).__mro__:
        if "forward" not in vars(kind):
            continue
        arguments = inspect.signature(vars(kind)["forward"]).parameters
        own = set(arguments)
        names |= own if names.isdisjoint(CACHE_NAMES) else own.difference(CACHE_NAMES)  # keep one name for the cache
        if not any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values()):
            break
    return frozenset(names)


def cache_argument(arguments: frozenset[str], cache: Cache) -> dict[str, Cache]:
    """Return the cache as a keyword argument, under the name that a forward with these `arguments` uses.

    Raises
    ------
    ConfigError
        The forward takes no cache, so generation cannot continue from it.

    >>> cache_argument(frozenset({"input_ids", "past_key_values"}), "a cache")
    {'past_key_values': 'a cache'}
    """
    for name in CACHE_NAMES:
        if name in arguments:
            return {name: cache}
    raise ConfigError(f"the model's forward takes no cache ({', '.join(CACHE_NAMES)}), so it cannot continue from one.")


def takes_cache(arguments: frozenset[str]) -> bool:
    """Return whether a forward with these arguments takes a cache."""
    return not arguments.isdisjoint(CACHE_NAMES)


def takes_positions(arguments: frozenset[str]) -> bool:
    """Return whether a forward with these arguments takes the position of each token."""
    return "position_ids" in arguments


def is_stateful(model: PreTrainedModel) -> bool:
    """Return whether layers keep one running state instead of a row per token (Mamba, and hybrids with it)."""
    return bool(model._is_stateful)


def attention_kind(model: PreTrainedModel) -> str:
    """Return the attention implementation of the decoder: "sdpa", "eager", "flash_attention_2", ..."""
    return str(model.config.get_text_config(decoder=True)._attn_implementation)


def embedding_rows(module: nn.Module) -> int:
    """Return the number of tokens of an embedding or an output head, V.

    Raises
    ------
    ConfigError
        It has no weight with one row per token.

    >>> embedding_rows(nn.Embedding(10, 4))
    10
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor):
        raise ConfigError(f"{type(module).__name__} has no weight with one row per token.")
    return len(weight)
