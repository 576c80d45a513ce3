"""Items and nothing but items from SGLang: a custom logit processor.

    SEMID_ARTIFACT=FOLDER python -m sglang.launch_server --model-path FOLDER \\
        --enable-custom-logit-processor --disable-overlap-schedule
    {"text": ..., "sampling_params": {"custom_params": {"semid_mode": "items"}, ...},
     "custom_logit_processor": TrieLogitProcessor.to_str()}

SGLang takes a processor as a string with each request, and loads it in the server. Ours holds no more than the name
of the class below, so semid must be installed in the server's environment, while a client needs semid or the string,
but not SGLang. `SEMID_ARTIFACT` names the model folder that `semid extend` wrote. `docs/serving.md` has the options of
a request.

SGLang's overlap scheduler samples a token before it has told the requests of the one before, on which a trie depends
more than on all others. Hence `--disable-overlap-schedule`, or `SGLANG_ENABLE_DELAY_SAMPLE=1`, which only has the
sampling wait. The processor notices where neither was done, and refuses. SGLang's beam search ignores processors.

The only file that knows SGLang; read off its 0.5.23. It imports nothing of it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import torch

from semid.errors import ConfigError
from semid.tokenizer_exports.serving.batch_masks import BatchMasks, Demand
from semid.tokenizer_exports.serving.requests import RequestOptions, open_catalog

__all__ = ["TrieLogitProcessor"]

log = logging.getLogger("semid")

DEMAND = "semid demand"  # kept beside the options in a request's own custom_params, so that they are read once


class _KV(Protocol):
    kv_committed_len: int  # tokens in the cache, the one that is being fed included


class _Request(Protocol):
    """What is read of SGLang's `Req`."""

    origin_input_ids: Sequence[int]
    output_ids: Sequence[int]
    eos_token_ids: set[int]
    kv: _KV


class TrieLogitProcessor:
    """Masks the logits of the requests that carry it; `semid_...` options go into their `custom_params`.

    Without options a request is in the mode "text": `custom_params` must then be `{}`, for SGLang shows a processor
    nothing of requests that have none, and they are not constrained. A request that cannot be fulfilled ends at
    once, and the log says why.

    >>> json.loads(TrieLogitProcessor.to_str()).keys()
    dict_keys(['callable'])
    """

    @classmethod
    def to_str(cls) -> str:
        """The processor as the server takes it.

        SGLang asks for a pickled class in hex. That of a class in a module is its name: the opcode GLOBAL with
        two lines, then STOP.
        """
        name = f"c{cls.__module__}\n{cls.__qualname__}\n."
        return json.dumps({"callable": name.encode().hex()})

    def __call__(
        self, logits: torch.Tensor, custom_param_list: list[dict[str, Any] | None] | None = None
    ) -> torch.Tensor:
        """Mask logits float [R, V] in place, given the `custom_params` of each row.

        Raises
        ------
        ConfigError
            The server runs in a way in which the tokens so far cannot be known (stops it), or `SEMID_ARTIFACT` is
            not set.
        """
        params = [each or {} for each in custom_param_list or [{}] * len(logits)]
        requests: list[_Request | None] = [each.get("__req__") for each in params]
        known = [request for request in requests if request is not None]
        if len(known) < len(requests):
            log.error("a request without custom_params is not constrained. Send {} for no options.")
        if not known:
            return logits
        _check(known)
        masks = _masks(logits.device, tuple(sorted(known[0].eos_token_ids)))
        demands = [None if each is None else _demand(masks, mine) for each, mine in zip(requests, params, strict=True)]
        histories = [None if each is None else (each.origin_input_ids, each.output_ids) for each in requests]
        return masks.mask_(logits, demands, histories)


def _check(requests: Sequence[_Request]) -> None:
    """Are all tokens of the requests known? ConfigError if not, which no request can cause: it is the server's way."""
    if len({id(request.output_ids) for request in requests}) < len(requests):
        raise ConfigError("speculative decoding gives a request several rows, whose drafts no processor is told.")
    for request in requests:
        if len(request.origin_input_ids) + len(request.output_ids) < request.kv.kv_committed_len:
            raise ConfigError(
                "the overlap scheduler samples before the last token is known. Start SGLang with "
                "--disable-overlap-schedule, or with SGLANG_ENABLE_DELAY_SAMPLE=1."
            )


@lru_cache(maxsize=4)
def _masks(device: torch.device, eos_ids: tuple[int, ...]) -> BatchMasks:
    """Made at the first request, and kept for the life of the server."""
    return BatchMasks(open_catalog(), device, eos_ids=eos_ids)


def _demand(masks: BatchMasks, params: dict[str, Any]) -> Demand | None:
    """What a request asks for; read from its options at its first token."""
    if DEMAND not in params or not isinstance(params[DEMAND], Demand | None):  # a client may send the name too
        try:
            params[DEMAND] = masks.demand(RequestOptions.of(params))
        except ConfigError as error:
            params[DEMAND] = masks.refusal(error)
    return params[DEMAND]
