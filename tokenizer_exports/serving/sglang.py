"""Constrain SGLang to the items of a catalog: a custom logit processor.

    SEMID_ARTIFACT=FOLDER python -m sglang.launch_server --model-path FOLDER \\
        --enable-custom-logit-processor --disable-overlap-schedule
    {"text": ..., "sampling_params": {"custom_params": {"semid_mode": "items"}, ...},
     "custom_logit_processor": TrieLogitProcessor.to_str()}

SGLang takes a processor as a string with each request and loads it in the server. Ours holds only the name of the class
below. So semid must be installed in the server's environment; a client needs the string, or semid to make it, but not
SGLang. `SEMID_ARTIFACT` names the model folder that `semid extend` wrote. `docs/serving.md` lists the options of a
request.

SGLang's overlap scheduler samples a token before the requests have received the one before it, which is the one that a
trie needs most. Hence `--disable-overlap-schedule`, or `SGLANG_ENABLE_DELAY_SAMPLE=1`, which only delays sampling. The
processor detects when neither is set, and raises an error. SGLang's beam search ignores processors.

This is the only file that depends on SGLang's interface, as of its version 0.5.23. It imports nothing from SGLang.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import torch

from semid.errors import ConfigError
from semid.tokenizer_exports.serving.batch_masks import BatchMasker, RequestConstraint
from semid.tokenizer_exports.serving.requests import RequestOptions, open_catalog

__all__ = ["TrieLogitProcessor"]

logger = logging.getLogger("semid")

# Where a request's constraint is kept in its custom_params, so that its options are read once.
CONSTRAINT_KEY = "semid constraint"


class _KV(Protocol):
    kv_committed_len: int  # tokens in the cache, including the one being fed


class _Request(Protocol):
    """The fields of SGLang's `Req` that are read here."""

    origin_input_ids: Sequence[int]
    output_ids: Sequence[int]
    eos_token_ids: set[int]
    kv: _KV


class TrieLogitProcessor:
    """Mask the logits of the requests that carry it. Their `custom_params` hold the `semid_...` options.

    A request without options is in the mode "text". It must still send `custom_params: {}`: SGLang shows a processor
    nothing of a request that has none, so such a request is not constrained. A request that cannot be fulfilled ends at
    once, and the log says why.

    >>> json.loads(TrieLogitProcessor.to_str()).keys()
    dict_keys(['callable'])
    """

    @classmethod
    def to_str(cls) -> str:
        """Return the string that a client sends as `custom_logit_processor`.

        SGLang expects a pickled class in hex. The pickle of a class is its name: the opcode GLOBAL with two lines, then
        STOP.
        """
        name = f"c{cls.__module__}\n{cls.__qualname__}\n."
        return json.dumps({"callable": name.encode().hex()})

    def __call__(
        self, logits: torch.Tensor, custom_param_list: list[dict[str, Any] | None] | None = None
    ) -> torch.Tensor:
        """Mask logits in place.

        Parameters
        ----------
        logits
            Floating point [R, V].
        custom_param_list
            The `custom_params` of each row, with SGLang's own request under "__req__".

        Raises
        ------
        ConfigError
            `SEMID_ARTIFACT` is not set, or the server's settings hide the latest tokens from processors. Either stops
            the server.
        """
        params = [each or {} for each in custom_param_list or [{}] * len(logits)]
        requests: list[_Request | None] = [each.get("__req__") for each in params]
        known = [request for request in requests if request is not None]
        if len(known) < len(requests):
            logger.error("a request without custom_params is not constrained. Send {} for no options.")
        if not known:
            return logits
        _check(known)
        masker = _batch_masker(logits.device, tuple(sorted(known[0].eos_token_ids)))
        row_constraints = [
            None if each is None else _request_constraint(masker, mine)
            for each, mine in zip(requests, params, strict=True)
        ]
        histories = [None if each is None else (each.origin_input_ids, each.output_ids) for each in requests]
        return masker.mask_(logits, row_constraints, histories)


def _check(requests: Sequence[_Request]) -> None:
    """Raise ConfigError unless all tokens of the requests are known. Only the server's settings can cause that."""
    if len({id(request.output_ids) for request in requests}) < len(requests):
        raise ConfigError("speculative decoding gives a request several rows and hides its drafts from processors.")
    for request in requests:
        if len(request.origin_input_ids) + len(request.output_ids) < request.kv.kv_committed_len:
            raise ConfigError(
                "the overlap scheduler samples before the last token is known. Start SGLang with "
                "--disable-overlap-schedule, or with SGLANG_ENABLE_DELAY_SAMPLE=1."
            )


@lru_cache(maxsize=4)
def _batch_masker(device: torch.device, eos_ids: tuple[int, ...]) -> BatchMasker:
    """Make the masker at the first request and keep it while the server lives."""
    return BatchMasker(open_catalog(), device, eos_ids=eos_ids)


def _request_constraint(masker: BatchMasker, params: dict[str, Any]) -> RequestConstraint | None:
    """Return what a request may generate; its options are read at its first token."""
    kept = params.get(CONSTRAINT_KEY, "not read yet")
    if isinstance(kept, RequestConstraint | None):  # a client may send another value under this name
        return kept
    try:
        constraint = masker.request_constraint(RequestOptions.of(params))
    except ConfigError as error:
        constraint = masker.refusal(error)
    params[CONSTRAINT_KEY] = constraint
    return constraint
