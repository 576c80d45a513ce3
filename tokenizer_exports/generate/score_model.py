"""Score a language model as a recommender: generate items for test cases, and compare them with what users chose.

    score_model_folder("my-llm", "data/next-item/test.jsonl").summary()

`semid score --model` does this. The figures are those of `semid.evaluate_recommendations`.
"""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from semid.data.interaction_reader import read_interactions
from semid.errors import ConfigError, InputError, OutputExistsError
from semid.evaluation.intervals import Bootstrap
from semid.evaluation.scores import Scores, System, TestSet
from semid.files.records import iter_records
from semid.runtime.checks import plural
from semid.runtime.devices import check_device, pick_device
from semid.runtime.progress import bar, log_step
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.generate.eval_cases import EvalCase, count_training, read_cases, users_of
from semid.tokenizer_exports.generate.top_k import tokenized
from semid.trie import Trie

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["choose_cases", "recommend_cases", "score_model_folder"]

logger = logging.getLogger("semid")


def recommend_cases(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: SemanticIDTokenizer,
    cases: Sequence[EvalCase],
    *,
    n: int = 20,
    num_beams: int | None = None,
    batch_size: int = 16,
) -> list[list[str]]:
    """Return the n best items for each case under a language model.

    Parameters
    ----------
    model, tokenizer
        A language model that has the tokens of `ids`, and its tokenizer.
    ids : SemanticIDTokenizer
        The artifact. Its live items are all ranked, those of the prompt too.
    cases : sequence of R EvalCase
        The prompts, as `read_cases` returns them.
    n : int
        Items of each list; fewer if the catalog has fewer. Default: 20.
    num_beams : int, optional
        Beam width, as in `generate_items`.
    batch_size : int
        Prompts per call of the model. Default: 16.

    Raises
    ------
    ConfigError
        As `generate_items`.
    """
    from semid.tokenizer_exports.generate.items import generate_items

    trie = Trie.from_tokenizer(ids, tokenizer)
    texts = [case.prompt(tokenizer) for case in cases]
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # prompts of one length need no padding
    lists: list[list[str]] = [[] for _ in cases]
    with bar("prompts", len(cases), unit="prompt") as advance:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            inputs = tokenized(tokenizer, [texts[row] for row in batch]).to(model.device)
            found = generate_items(model, inputs, trie, num_return=min(n, len(trie)), num_beams=num_beams)
            assert found.item_ids is not None  # the trie was made from an artifact
            for row, items in zip(batch, found.item_ids, strict=True):
                lists[row] = items
            advance(len(batch))
    return lists


def score_model_folder(
    folder: str | Path,
    test: str | Path,
    *,
    ids: str | Path | None = None,
    compare: str | Path | None = None,
    k: Sequence[int] = (1, 5, 10, 20),
    num_beams: int | None = None,
    batch_size: int = 16,
    max_cases: int | None = None,
    output: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
) -> Scores:
    """Run a model over a test file of `semid align`, and score what it generates.

    Popularity and co-occurrence are counted from the training files beside the test file.

    Parameters
    ----------
    folder : path
        A transformers model.
    test : path
        `next-item/test.jsonl` of `semid align`, or `validation.jsonl`.
    ids : path, optional
        The artifact. Default: the one in the model's folder, where `semid extend` puts it.
    compare : path, optional
        Other recommendations to compare with, such as an `output` of this function, or one list for each user.
    k : sequence of int
        Lengths of the lists to measure. Default: 1, 5, 10, 20.
    num_beams, batch_size
        As in `recommend_cases`.
    max_cases : int, optional
        Test cases, drawn at random. Default: all.
    output : path, optional
        Where to write the recommendations, as JSON lines with user, item_id and items. Default: nowhere.
    device : str
        Device of the model. Default: the first GPU, else the CPU.
    seed : int
        Seed of the draw. Default: 0.
    bootstrap : Bootstrap, optional
        How to compute intervals. Default: 1,000 resamples, 95 %, seed 0.

    Raises
    ------
    InputError
        The test file is wrong, or is of other IDs; `compare` has none of its cases.
    ConfigError
        The folder holds no model that can be run, or as `generate_items`.
    OutputExistsError
        `output` exists.
    """
    if output is not None and output.exists():
        raise OutputExistsError(f"{output}: exists. Choose another file, or remove it.")
    tokens = SemanticIDTokenizer.from_pretrained(folder if ids is None else ids)
    cases = choose_cases(read_cases(test), max_cases, seed)
    unknown = [case.item_id for case in cases if case.item_id not in tokens]
    if len(unknown) == len(cases):
        raise InputError(f"{test}: none of its items is in the artifact, such as {unknown[0]!r}. Are the ids the same?")
    others = {} if compare is None else {Path(compare).name: _other(compare, cases)}
    training = count_training(Path(test).parent, tokens)
    log_step("read", f"{plural(len(cases), 'test case')}, {plural(len(training.pairs), 'training record')}")
    model, tokenizer = _load(folder, device)
    lists = recommend_cases(model, tokenizer, tokens, cases, n=max(k), num_beams=num_beams, batch_size=batch_size)
    if output is not None:
        _write(output, cases, lists)
        log_step("saved", str(output))
    live = tokens.ledger.live
    catalog = [item_id for row, item_id in enumerate(tokens.item_ids) if live[row]]
    test_set = TestSet(
        relevant=[[case.item_id] for case in cases],
        users=users_of(cases),
        last_items=[case.last_item(tokens) for case in cases],
        popularity=training.popularity,
        pairs=training.pairs,
        catalog=catalog,
    )
    systems = {Path(folder).name: lists} | others
    return test_set.score({name: System(one, catalog) for name, one in systems.items()}, k=k, bootstrap=bootstrap)


def choose_cases(cases: list[EvalCase], max_cases: int | None, seed: int) -> list[EvalCase]:
    """Return so many cases, drawn at random, in their order; all for None."""
    if max_cases is None or max_cases >= len(cases):
        return cases
    return [cases[row] for row in sorted(Random(seed).sample(range(len(cases)), max_cases))]


def _other(source: str | Path, cases: Sequence[EvalCase]) -> list[list[str]]:
    """Return the lists of another system for the same cases: what `output` wrote, or one list for each user."""
    written = [record for _, record in iter_records(source)]
    if written and all({"user", "item_id", "items"} <= record.keys() for record in written):
        lists = defaultdict[tuple[str, str], list[list[str]]](list)
        for record in reversed(written):
            lists[str(record["user"]), str(record["item_id"])].append(list(map(str, record["items"])))
        found = [lists[case.user, case.item_id].pop() if lists[case.user, case.item_id] else [] for case in cases]
    else:
        users = [case.user for case in cases]
        if len(set(users)) < len(users):
            raise InputError(
                f"{source}: one list for each user, but users have several test cases. Give what semid score -o wrote."
            )
        by_user = dict(read_interactions(source, item_field="items", time_field=""))
        found = [by_user.get(user, []) for user in users]
    if not any(found):
        raise InputError(f"{source}: has none of the test cases. Are the user ids the same?")
    if missing := sum(not one for one in found):
        logger.warning("%s: nothing for %s; they count as wrong", source, plural(missing, "test case"))
    return found


def _load(folder: str | Path, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model and the tokenizer of a folder."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    check_device(device)
    shows_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, tokenizer = kind.from_pretrained(folder, dtype="auto"), AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{folder}: no model can be loaded ({reason}). Give a language model's folder.") from error
    finally:
        if shows_bars:
            transformers_logging.enable_progress_bar()
    if tokenizer.pad_token is None:  # padding is masked, so any token serves
        tokenizer.pad_token = tokenizer.eos_token
    torch.nn.Module.to(model, pick_device(device))
    return model.eval(), tokenizer


def _write(output: Path, cases: Sequence[EvalCase], lists: Sequence[Sequence[str]]) -> None:
    """Write recommendations as JSON lines; the file appears whole."""
    draft = output.with_name(f"{output.name}.part-{os.getpid()}")
    try:
        with draft.open("x", encoding="utf-8", newline="\n") as file:
            for case, items in zip(cases, lists, strict=True):
                record = {"user": case.user, "item_id": case.item_id, "items": list(items)}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        os.replace(draft, output)
    finally:
        draft.unlink(missing_ok=True)
