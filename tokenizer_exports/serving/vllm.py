"""Constrain vLLM to the items of a catalog: a logits processor for each of its two model runners.

    LLM(folder, logits_processors=["semid.tokenizer_exports.serving.vllm:TrieLogitsProcessorV1"])
    vllm serve FOLDER --logits-processors semid.tokenizer_exports.serving.vllm:TrieLogitsProcessorV2

vLLM has two interfaces and stops if it gets a class for the other one: V2 where it runs its V2 model runner (the
default on GPUs), V1 otherwise (CPUs, or VLLM_USE_V2_MODEL_RUNNER=0). No entry point is registered, because vLLM would
load every class of an entry point under either runner. `docs/serving.md` has the recipe and the options of a request.
vLLM's beam search ignores logits processors; use `generate_items` for wide beams.

A request is in the mode "text" unless it says otherwise: it may write any text, but every item that it begins ends as
an item of the catalog. Requests that restrict tokens in another way and have no semid options are left alone.

This is the only file that depends on vLLM's interface, which is the same in its versions 0.32.0 and 0.33.0.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from semid.errors import ConfigError, DependencyError
from semid.tokenizer_exports.serving.batch_masks import (
    BatchMasker,
    Group,
    RequestConstraint,
    constraints_of,
    tail_length,
)
from semid.tokenizer_exports.serving.requests import ARTIFACT, RequestOptions, open_catalog

try:
    from vllm.v1.sample.logits_processor import LogitsProcessor as LogitsProcessorV1
    from vllm.v1.sample.logits_processor import MoveDirectionality
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as LogitsProcessorV2
except ImportError as error:
    raise DependencyError(
        f"semid.tokenizer_exports.serving.vllm needs vLLM 0.32 or newer ({error}). It runs inside the server: install "
        "semid into the environment of vLLM."
    ) from error

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

__all__ = ["TrieLogitsProcessorV1", "TrieLogitsProcessorV2"]

OTHER_RESTRICTIONS = ("structured_outputs", "allowed_token_ids", "bad_words")


class TrieLogitsProcessorV1(LogitsProcessorV1):
    """The processor for vLLM's V1 model runner.

    vLLM passes the tokens of a request as two lists when it enters; the second one grows with the request. Under
    asynchronous scheduling it ends in -1 until just before the logits are processed, so it is read only then.
    """

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse a request that cannot be fulfilled: ConfigError, which vLLM answers with HTTP 400."""
        _validate(sampling_params)

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self.masker = _batch_masker(vllm_config, device)
        self.requests: dict[
            int, tuple[RequestConstraint, list[int], list[int]]
        ] = {}  # row -> constraint, prompt, output so far

    def is_argmax_invariant(self) -> bool:
        """Return False: masking may change which token is the likeliest."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Apply the changes of the batch: removed rows, then added ones, then moved ones."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self.requests.pop(row, None)
        for row, params, prompt, output in batch_update.added:
            constraint = self.masker.request_constraint(_options(params))
            self._put(row, None if constraint is None else (constraint, prompt or [], output))
        for one, other, direction in batch_update.moved:
            moved, replaced = self.requests.get(one), self.requests.get(other)
            self._put(other, moved)
            self._put(one, replaced if direction == MoveDirectionality.SWAP else None)

    def _put(self, row: int, request: tuple[RequestConstraint, list[int], list[int]] | None) -> None:
        if request is None:
            self.requests.pop(row, None)
        else:
            self.requests[row] = request

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Mask logits float [rows, V] in place."""
        if not self.requests:
            return logits
        requests = [self.requests.get(row) for row in range(len(logits))]
        row_constraints = [None if request is None else request[0] for request in requests]
        return self.masker.mask_(
            logits, row_constraints, [None if request is None else request[1:] for request in requests]
        )


class TrieLogitsProcessorV2(LogitsProcessorV2):
    """The processor for vLLM's V2 model runner, which keeps the tokens on the device, one slot per request."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse a request that cannot be fulfilled: ConfigError, which vLLM answers with HTTP 400."""
        _validate(sampling_params)

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        self.masker = _batch_masker(vllm_config, req_states.device)
        self.states = req_states
        self.slots: list[RequestConstraint | None] = [None] * req_states.max_num_reqs  # of each slot

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Put a request into a slot, in place of the former one; return whether it is constrained."""
        self.slots[req_idx] = self.masker.request_constraint(_options(sampling_params))
        return self.slots[req_idx] is not None

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Mask logits float32 [rows, V] in place."""
        slots = ctx.idx_mapping_np
        if len(slots) != len(logits):  # speculative decoding: a request has a row for each draft token
            slots = ctx.expanded_idx_mapping.cpu().numpy()
        for group in self.masker.groups([self.slots[slot] for slot in slots.tolist()]):
            self.masker.apply_(logits, group, *self._history(group, ctx))
        return logits

    def _history(self, group: Group, ctx: LogitsContext) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids int64 [rows of the group, T], and how many of the T columns precede the generated ones.

        The last column is the token fed last. Draft tokens are found only in the engine's input.
        """
        device, width = ctx.pos.device, tail_length(self.masker.trie.trie.n_levels)
        if group.masker.constraints.counts:
            generated = ctx.seq_lens_upper_bound_np - self.states.prompt_len.np[ctx.idx_mapping_np]
            width += max(int(generated.max()), 0)
        rows = torch.tensor(group.rows, device=device) if len(group.rows) < len(ctx.pos) else slice(None)
        slots, lengths = ctx.expanded_idx_mapping[rows].long(), ctx.pos[rows].long() + 1
        back = torch.arange(width - 1, -1, -1, device=device)  # distance from the row's last token
        places = lengths.unsqueeze(1) - 1 - back
        committed = self.states.all_token_ids.gpu[slots.unsqueeze(1), places.clamp(min=0)].long()
        input_rows = torch.arange(len(ctx.pos), device=device)[rows].unsqueeze(1) - back
        fed = ctx.input_ids[input_rows.clamp(min=0)].long()
        drafted = back <= ctx.expanded_local_pos[rows].unsqueeze(1)
        token_ids = torch.where(places >= 0, torch.where(drafted, fed, committed), -1)
        return token_ids, (width - lengths + self.states.prompt_len.gpu[slots]).clamp(0, width)


# ---- shared by both


def _batch_masker(vllm_config: VllmConfig, device: torch.device) -> BatchMasker:
    """Make the masker for the model that vLLM serves. An error here stops the server at its start."""
    model = vllm_config.model_config
    eos = model.try_get_generation_config().get("eos_token_id")
    eos = model.hf_text_config.eos_token_id if eos is None else eos
    return BatchMasker(
        open_catalog(model.model, tokenizer=model.tokenizer),
        device,
        eos_ids=eos if isinstance(eos, list) else [] if eos is None else [eos],
        vocab_size=model.get_vocab_size(),
    )


def _options(params: SamplingParams) -> RequestOptions:
    """Return the options of a request; ConfigError if they are wrong or conflict with vLLM's own restrictions."""
    options = RequestOptions.of(params.extra_args)
    others = [name for name in OTHER_RESTRICTIONS if getattr(params, name)]
    if options.mode == "items" and params.min_tokens:
        others.append("min_tokens")
    if not others or options.mode == "off":
        return options
    if options == RequestOptions():
        return RequestOptions(mode="off")
    raise ConfigError(
        f"{others[0]} and semid options were both given: together they may leave no token at all. Leave one of them "
        "out; semid_only, semid_without and semid_min_items restrict the items."
    )


def _validate(params: SamplingParams) -> None:
    """Refuse a wrong request before it enters. Filters are checked only if `SEMID_ARTIFACT` names the catalog."""
    options = _options(params)
    constraints_of(options)
    if os.environ.get(ARTIFACT):
        open_catalog().check(options)
