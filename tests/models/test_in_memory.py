"""Tokens and rows enter a loaded tokenizer and model: in place, once, and without touching what was there."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AddedToken, PreTrainedTokenizerFast

from semid.errors import ConfigError
from semid.tokenizer_exports.models import extend, train_only_new_rows
from semid.tokenizer_exports.models.add_tokens import add_tokens
from semid.tokens import Vocabulary, hint_on_bytes
from tests.helpers.tiny_models import KINDS, ids_of, logits_of, new_model, new_tokenizer

PROMPTS = [[5, 9, 80, 3, 17], [200, 31, 44, 270, 8]]


def words(*names: str) -> PreTrainedTokenizerFast:
    table = {name: place for place, name in enumerate(["[UNK]", "buy", *names])}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(table, unk_token="[UNK]")))


# ---- tokens


def test_the_block_is_added_in_one_piece_behind_all_others_with_plain_flags():
    tokenizer, vocabulary = new_tokenizer(), Vocabulary([5, 3])
    before = len(tokenizer)
    base = add_tokens(tokenizer, vocabulary)
    assert base == before and len(tokenizer) == before + 10
    assert tokenizer.convert_ids_to_tokens(list(range(base, base + 10))) == vocabulary.tokens
    added = [tokenizer.added_tokens_decoder[i] for i in range(base, base + 10)]
    assert not any(t.special or t.normalized or t.lstrip or t.rstrip or t.single_word for t in added)


def test_ordinary_text_tokenizes_as_before_and_items_survive_skipping_special_tokens():
    tokenizer, plain = new_tokenizer(), new_tokenizer()
    vocabulary = Vocabulary([20, 20])
    base = add_tokens(tokenizer, vocabulary)
    for text in ("red shoe, warm", "<s_a_ 1> < s_a_1 >", "<S_A_1>", "\n  été 😀", "<s_a_20><s_c_1>"):
        assert tokenizer(text)["input_ids"] == plain(text)["input_ids"]
    text = "buy<s_a_12><s_b_3>, or <s_a_1><s_b_19>!"
    found = tokenizer(text)["input_ids"]
    assert [i - base for i in found if i >= base] == [12, 23, 1, 39]
    assert tokenizer.decode(found, skip_special_tokens=True) == text


def test_adding_twice_changes_nothing():
    tokenizer, vocabulary = new_tokenizer(), Vocabulary([5, 3])
    base = add_tokens(tokenizer, vocabulary)
    before = tokenizer.backend_tokenizer.to_str()
    assert add_tokens(tokenizer, vocabulary) == base
    assert tokenizer.backend_tokenizer.to_str() == before


def test_a_hundred_thousand_tokens_are_added_in_two_seconds():
    vocabulary, times = Vocabulary([50_000, 50_000]), []
    assert len(vocabulary.tokens) == 100_002
    for _ in range(3):  # the machine may be busy: the best of three
        tokenizer = new_tokenizer()
        start = time.process_time()
        base = add_tokens(tokenizer, vocabulary)
        times.append(time.process_time() - start)
        if times[-1] < 2:
            break
    assert min(times) < 2
    assert tokenizer("<s_a_49999><s_b_0>")["input_ids"] == [base + 49_999, base + 50_000]


def test_names_that_are_taken_are_refused_by_name_and_nothing_is_added():
    tokenizer = words("<s_a_1>", "<s_b_0>")
    with pytest.raises(ConfigError, match=r"2 of the 8 tokens of the IDs: '<s_a_1>', '<s_b_0>'; .*--template"):
        add_tokens(tokenizer, Vocabulary([3, 3]))
    assert len(tokenizer) == 4
    tokenizer = words(*Vocabulary([9, 9]).tokens[:9])
    with pytest.raises(ConfigError, match=r"9 of the 20 .*'<s_a_4>', \.\.\.;"):
        add_tokens(tokenizer, Vocabulary([9, 9]))


@pytest.mark.parametrize("name", ["s", "stück", "Ġs", "Ńs", "ńs", "ńüs", "品", "品ü"])
def test_names_that_a_byte_level_tokenizer_cannot_write_are_refused_and_hinted_at_before(name):
    """It stands for the byte 0xFC with ü, and so writes it; of other letters all are written as they are."""
    template = f"<{name}_{{letter}}_{{code}}>"
    tokenizer, vocabulary = new_tokenizer(), Vocabulary([3, 4], template)
    if hint_on_bytes(template):
        with pytest.raises(ConfigError, match=f"would write the token '<{name}_a_2>' as .*ASCII letters.* --template"):
            add_tokens(tokenizer, vocabulary)
    else:
        add_tokens(tokenizer, vocabulary)
        assert tokenizer.decode(tokenizer(vocabulary.text([2, 3]))["input_ids"]) == vocabulary.text([2, 3])
    assert bool(hint_on_bytes(template)) == (name in ("stück", "Ġs", "Ńs"))


@pytest.mark.parametrize(
    "flag, harm",
    [("special", "erase the items"), ("normalized", "other spellings"), ("lstrip", "blanks before"),
     ("rstrip", "blanks after"), ("single_word", "without blanks between")],
)  # fmt: skip
def test_a_block_with_harmful_flags_is_refused_with_the_harm(flag, harm):
    tokenizer, vocabulary = words(), Vocabulary([2, 2])
    flags = {"special": False, "normalized": False} | {flag: True}
    tokenizer.add_tokens([AddedToken(token, **flags) for token in vocabulary.tokens], special_tokens=flag == "special")
    with pytest.raises(ConfigError, match=f"{flag}=True, expected False: .*{harm}"):
        add_tokens(tokenizer, vocabulary)


def test_a_block_of_ordinary_words_or_out_of_order_is_refused():
    vocabulary = Vocabulary([2, 2])
    with pytest.raises(ConfigError, match="ordinary word of the tokenizer"):
        add_tokens(words(*vocabulary.tokens), vocabulary)
    tokenizer = words()
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in reversed(vocabulary.tokens)])
    with pytest.raises(ConfigError, match="one block in the order"):
        add_tokens(tokenizer, vocabulary)


def test_a_tokenizer_that_gives_out_ids_that_are_taken_is_refused():
    holes = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 5, "b": 9}, unk_token="[UNK]"))
    with pytest.raises(ConfigError, match="ids from 3 on, which are taken|one block in the order|lacks"):
        add_tokens(PreTrainedTokenizerFast(tokenizer_object=holes), Vocabulary([2]))


# ---- rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("init", ["codebook", "text", "text+codebook", "default"])
def test_every_kind_of_model_speaks_the_ids_and_old_tokens_keep_their_logits(kind, init):
    tokenizer, model, ids = new_tokenizer(), new_model(kind), ids_of()
    n_old, tied = len(tokenizer), model.get_output_embeddings().weight is model.get_input_embeddings().weight
    before, config_was = logits_of(model, PROMPTS), model.config.to_dict()
    extended = extend(tokenizer, model, ids, init=init)
    assert (extended.base, extended.n_tokens, extended.n_rows) == (n_old, 26, 384)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert embedding.weight.shape[0] == head.weight.shape[0] == embedding.num_embeddings == head.out_features == 384
    assert model.config.vocab_size == 384
    assert {k: v for k, v in model.config.to_dict().items() if k != "vocab_size"} == {
        k: v for k, v in config_was.items() if k != "vocab_size"
    }
    assert (head.weight is embedding.weight) == tied
    after = logits_of(model, PROMPTS)
    torch.testing.assert_close(after[..., :n_old], before, rtol=1e-5, atol=1e-5)
    assert after[..., n_old : n_old + 26].std() > 0.05 * before.std()
    assert torch.isfinite(logits_of(model, [[*row, *extended.token_ids] for row in PROMPTS])).all()
    distances = torch.pdist(embedding.weight[n_old : n_old + 26].detach())
    assert distances.min() > 0.01 * distances.mean()  # the closest codes: by the processor's rounding
    assert len(extended.matrices) == (1 if tied else 2)


@pytest.mark.parametrize("kind", ["qwen3 untied", "phi with a head bias", "t5 with a head of its own"])
def test_an_untied_head_gets_rows_inside_its_own_cloud(kind):
    tokenizer, model = new_tokenizer(), new_model(kind)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(7).add_(2)
    extended = extend(tokenizer, model, ids_of(), init="codebook")
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        old, new = module.weight.detach()[: extended.base], module.weight.detach()[extended.base :][:24]
        spread = (new - old.mean(0)).square().sum(1).mean() / (old - old.mean(0)).square().sum(1).mean()
        assert 0.97 < spread < 1.03
    bias = model.get_output_embeddings().bias
    if bias is not None:
        torch.testing.assert_close(bias[extended.base :], bias[: extended.base].mean().expand(84), rtol=1e-5, atol=1e-5)


def test_new_padding_is_never_the_most_likely_token():
    tokenizer, model = new_tokenizer(), new_model("qwen3 tied")
    extended = extend(tokenizer, model, ids_of(), pad_to=512)
    assert extended.n_rows == 512
    padding = logits_of(model, PROMPTS)[..., extended.base + 26 :]
    assert (padding < logits_of(model, PROMPTS)[..., : extended.base].max(-1, keepdim=True).values).all()


@pytest.mark.parametrize("n_rows, pad_to, expected", [(300, 64, 384), (300, 1, 326), (400, 64, 400), (330, 1, 330),
                                                     (300, 100, 400), (384, 512, 512)])  # fmt: skip
def test_padded_matrices_never_shrink_and_grow_to_the_padding(n_rows, pad_to, expected):
    model = new_model("qwen3 untied", n_rows)
    rest = model.get_input_embeddings().weight.detach()[326:n_rows].clone()
    extended = extend(new_tokenizer(), model, ids_of(), pad_to=pad_to)
    assert extended.n_rows == len(model.get_input_embeddings().weight) == model.config.vocab_size == expected
    assert (model.get_input_embeddings().weight.detach()[326:n_rows] == rest).all()


def test_rows_of_the_padding_do_not_count_as_old_tokens():
    model = new_model("qwen3 tied", 1000)
    with torch.no_grad():
        model.get_input_embeddings().weight[326:] = 1e4
        model.get_input_embeddings().weight[300:326] = -1e4
    extend(new_tokenizer(), model, ids_of())
    assert model.get_input_embeddings().weight[300:326].abs().max() < 100


@pytest.mark.parametrize("kind", ["qwen3 tied", "llama untied", "t5 tied"])
def test_extending_twice_changes_nothing(kind):
    tokenizer, model = new_tokenizer(), new_model(kind)
    first = extend(tokenizer, model, ids_of())
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    again = extend(tokenizer, model, ids_of(), init="text", seed=7, pad_to=1024)
    assert (again.base, again.n_tokens, again.n_rows, again.initialized) == (first.base, 26, 384, False)
    assert "already there" in again.summary()[0]
    assert all((tensor == state[name]).all() for name, tensor in model.state_dict().items())


def test_a_tokenizer_extended_before_its_model_is_caught_up_with():
    tokenizer, model = new_tokenizer(), new_model("qwen3 tied")
    add_tokens(tokenizer, ids_of().vocabulary)
    extended = extend(tokenizer, model, ids_of())
    assert extended.initialized and extended.n_rows == 384


def test_half_precision_models_get_distinct_rows_in_their_own_type():
    model = new_model("qwen3 tied", dtype=torch.bfloat16)
    extended = extend(new_tokenizer(), model, ids_of())
    weight = model.get_input_embeddings().weight.detach()
    assert weight.dtype == torch.bfloat16
    assert len(torch.unique(weight[extended.base : extended.base + 26], dim=0)) == 26


def test_two_sets_of_ids_can_live_in_one_model():
    tokenizer, model = new_tokenizer(), new_model("qwen3 tied")
    one = extend(tokenizer, model, ids_of())
    rows = model.get_input_embeddings().weight.detach()[list(one.token_ids)].clone()
    two = extend(tokenizer, model, ids_of(template="<|{letter}:{code}|>"))
    assert two.base == one.base + 26
    assert (model.get_input_embeddings().weight.detach()[list(one.token_ids)] == rows).all()


def test_a_wrong_tokenizer_is_refused_before_anything_changes():
    tokenizer, model = new_tokenizer(), new_model("qwen3 tied", 200)
    with pytest.raises(ConfigError, match="wrong tokenizer for this model: .*ids up to 299, .* 200 rows"):
        extend(tokenizer, model, ids_of())
    assert len(tokenizer) == 300 and len(model.get_input_embeddings().weight) == 200


def test_weights_that_are_quantised_or_not_in_memory_are_refused():
    model = new_model("qwen3 tied")
    model.get_input_embeddings().weight = torch.nn.Parameter(torch.zeros(300, 32, dtype=torch.int8), False)
    with pytest.raises(ConfigError, match="int8, expected .* quantized"):
        extend(new_tokenizer(), model, ids_of())
    with torch.device("meta"):
        model = new_model("qwen3 tied")
    with pytest.raises(ConfigError, match="not in memory .*semid extend BASE"):
        extend(new_tokenizer(), model, ids_of())


def test_ids_without_texts_cannot_start_from_texts():
    with pytest.raises(ConfigError, match="saved without"):
        extend(new_tokenizer(), new_model("qwen3 tied"), ids_of(store_text=False), init="text")


def test_the_report_is_plain_data_with_a_line_for_each_level():
    extended = extend(new_tokenizer(), new_model("llama untied"), ids_of(), init="text")
    lines = extended.summary()
    assert lines[0] == "26 tokens, ids 300 to 325; 384 rows; init text"
    assert [line.split(":")[0] for line in lines[1:]] == [
        "input rows", "  level 1", "  level 2", "  level 3", "head rows", "  level 1", "  level 2", "  level 3"
    ]  # fmt: skip
    as_dict = extended.to_dict()
    assert as_dict["base"] == 300 and as_dict["matrices"][1]["matrix"] == "head"


def test_codes_start_on_the_side_of_the_words_of_their_items():
    """Apart from what a level has in common, the token nearest to most codes is a word of their items."""
    tokenizer, model, ids = new_tokenizer(), new_model("qwen3 tied"), ids_of()
    extended = extend(tokenizer, model, ids, init="text")
    weight = model.get_input_embeddings().weight.detach().double()
    old, level = weight[: extended.base], weight[extended.base : extended.base + 8]
    cosines = torch.nn.functional.cosine_similarity(
        (level - level.mean(0))[:, None], (old - old.mean(0))[None], dim=2
    )  # fmt: skip
    live = [code for code in range(8) if (ids.codes[:, 0] == code).any()]
    nearest = [tokenizer.decode([i]).strip() for i in cosines.argmax(1)[live].tolist()]
    said = [{w for row in np.flatnonzero(ids.codes[:, 0] == code) for w in ids.texts[row].split()} for code in live]
    right = [any(w.startswith(token) for w in words) for token, words in zip(nearest, said, strict=True)]
    assert np.mean(right) >= 0.75


# ---- training the new rows only


def trained(model, extended, weight_decay: float, steps: int = 4) -> None:
    given = torch.tensor([[5, 9, *list(extended.token_ids)[:4], 80, 3]])
    keys = {"labels": given} if model.config.is_encoder_decoder else {"labels": given}
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), 0.05, weight_decay=weight_decay)
    for _ in range(steps):
        model(input_ids=given, **keys).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["qwen3 tied", "llama untied", "phi with a head bias", "t5 with a head of its own"])
def test_only_new_rows_move_even_with_weight_decay(kind, weight_decay):
    tokenizer, model = new_tokenizer(), new_model(kind)
    extended = extend(tokenizer, model, ids_of())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    needed = {name: p.requires_grad for name, p in model.named_parameters()}
    frozen = train_only_new_rows(model, extended)
    trained(model, extended, weight_decay)
    frozen.remove()
    head, rows = model.get_output_embeddings(), slice(extended.base, extended.base + 26)
    own = {id(model.get_input_embeddings().weight), id(head.weight), id(head.bias)}
    moved = set()
    for name, parameter in model.named_parameters():
        same = (parameter.detach() == before[name]).reshape(len(parameter), -1).all(1)
        if id(parameter) in own:
            assert same[: rows.start].all() and same[rows.stop :].all(), name
            assert not same[rows].all(), name
            moved.add(id(parameter))
        else:
            assert same.all(), name
    assert moved == own - {id(None)}
    assert {name: p.requires_grad for name, p in model.named_parameters()} == needed


def test_after_removal_everything_trains_again():
    tokenizer, model = new_tokenizer(), new_model("qwen3 tied")
    extended = extend(tokenizer, model, ids_of())
    train_only_new_rows(model, extended.token_ids).remove()
    before = model.get_input_embeddings().weight.detach().clone()
    trained(model, extended, 0.1, steps=1)
    assert (model.get_input_embeddings().weight.detach() != before)[:300].any(1).all()


@pytest.mark.parametrize("rows", [range(0), range(5, 2000), range(-4, 5), range(0, 10, 2)])
def test_rows_outside_the_model_cannot_be_trained(rows):
    with pytest.raises(ConfigError, match="should be rows of the embedding, which has 300"):
        train_only_new_rows(new_model("qwen3 tied"), rows)


@pytest.mark.parametrize("kind", ["qwen3 tied", "llama untied"])
def test_peft_trains_the_new_rows_and_nothing_else(kind):
    peft = pytest.importorskip("peft")
    tokenizer, model = new_tokenizer(), new_model(kind)
    extended = extend(tokenizer, model, ids_of())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj"], trainable_token_indices=extended.trainable_token_indices, lora_alpha=0
    )
    wrapped = peft.get_peft_model(model, config)
    trained(wrapped, extended, 0.1)
    whole = wrapped.merge_and_unload()
    tied = kind == "qwen3 tied"
    for module in {whole.get_input_embeddings(), whole.get_output_embeddings()}:
        name = "model.embed_tokens.weight" if tied or module is whole.get_input_embeddings() else "lm_head.weight"
        same = (module.weight.detach() == before[name]).all(1)
        expected = np.ones(384, bool)
        expected[list(extended.token_ids)[:4]] = False  # the ones that were seen
        assert same[:300].all() and same[326:].all()
        assert not same[list(extended.token_ids)[:4]].any()
