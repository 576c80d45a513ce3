"""`trie_step` under Triton's interpreter, and its plain torch form, against a sort of Python tuples."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from semid.kernels.trie_step import Beams, trie_step, trie_step_torch
from tests.kernels import reference_trie_step as reference
from tests.kernels.trie_step_cases import random_beams

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy warns of the NaN that these tests want
FORMS = pytest.mark.parametrize("step", [trie_step, trie_step_torch], ids=["triton", "torch"])


@dataclasses.dataclass(frozen=True)
class Question:
    states: torch.Tensor  # (B, M, H)
    weight: torch.Tensor  # (K, H)
    beams: Beams


def random_question(
    prompts: int, beams: int, hidden: int, codes: int, width: int, *, filtered: bool = False, seed: int = 0
) -> Question:
    generator = torch.Generator().manual_seed(seed)
    return Question(
        torch.randn(prompts, beams, hidden, generator=generator),
        torch.randn(codes, hidden, generator=generator) / math.sqrt(hidden),
        random_beams(prompts, beams, codes, width, filtered=filtered, seed=seed),
    )


def agrees(question, count, found, **options):
    expected = reference.trie_step(question.states, question.weight, question.beams, count, **options)
    for prompt, rows in enumerate(expected):
        chosen = zip(found.parents[prompt], found.codes[prompt], found.children[prompt], strict=True)
        chosen = [tuple(map(int, each)) for each in chosen]
        assert chosen == [row[:3] for row in rows] + [(0, 0, -1)] * (count - len(rows))
        scores = [row[3] for row in rows] + [-math.inf] * (count - len(rows))
        assert found.scores[prompt].tolist() == pytest.approx(scores, abs=1e-4)
    logits = reference.logits(question.states, question.weight, *(options.get(name) for name in ("bias",)),
                              options.get("scale", 1.0), options.get("cap"))  # fmt: skip
    torch.testing.assert_close(found.normalizers.double(), logits.logsumexp(-1), rtol=1e-4, atol=1e-4)


@FORMS
@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize(
    ("prompts", "beams", "hidden", "codes", "width", "count"),
    [
        (1, 1, 8, 16, 16, 16),
        (2, 5, 20, 33, 7, 6),
        (3, 7, 65, 64, 5, 35),
        (1, 50, 32, 256, 64, 50),
        (2, 63, 16, 100, 3, 10),
        (1, 65, 16, 31, 31, 65),
        (1, 2, 7, 1, 1, 2),
        (1, 3, 16, 1000, 997, 40),
    ],
)
def test_the_best_children_in_order(step, prompts, beams, hidden, codes, width, count, filtered):
    question = random_question(prompts, beams, hidden, codes, width, filtered=filtered)
    agrees(question, count, step(question.states, question.weight, question.beams, count))


@FORMS
@pytest.mark.parametrize("options", [{"bias": True}, {"scale": 0.3}, {"cap": 2.0}, {"bias": True, "cap": 0.5}])
def test_what_models_do_to_their_logits(step, options):
    question = random_question(2, 6, 24, 40, 8)
    if "bias" in options:
        options = options | {"bias": torch.randn(40, generator=torch.Generator().manual_seed(5))}
    found = step(question.states, question.weight, question.beams, 7, **options)
    agrees(question, 7, found, **options)


@FORMS
def test_huge_logits_do_not_overflow_the_cap(step):
    question = random_question(1, 4, 8, 20, 6)
    found = step(question.states * 1e6, question.weight, question.beams, 3, cap=30.0)
    assert found.normalizers.isfinite().all() and found.normalizers.max() <= 30 + math.log(20) + 1e-4


@FORMS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_are_multiplied_exactly(step, dtype):
    question = random_question(2, 5, 40, 30, 6)
    question = dataclasses.replace(question, states=question.states.to(dtype), weight=question.weight.to(dtype))
    agrees(question, 6, step(question.states, question.weight, question.beams, 6))


@FORMS
def test_equal_scores_are_taken_in_the_order_of_parent_and_code(step):
    beams = Beams(
        torch.zeros(1, 3), torch.tensor([[0, 4, 8]]), torch.tensor([[4, 4, 4]]), torch.arange(4).repeat(3), width=4
    )
    found = step(torch.zeros(1, 3, 8), torch.zeros(4, 8), beams, 6)
    assert found.parents.tolist() == [[0, 0, 0, 0, 1, 1]]
    assert found.codes.tolist() == [[0, 1, 2, 3, 0, 1]]


@FORMS
def test_zeros_of_either_sign_are_equal(step):
    one = torch.ones(1, 2, dtype=torch.long)
    beams = Beams(torch.tensor([[-0.0, 0.0]]), one - 1, one, torch.tensor([0]), width=1)
    found = step(torch.zeros(1, 2, 1), torch.zeros(1, 1), beams, 1, scale=-1.0)  # candidates -0 and +0
    assert found.parents.tolist() == [[0]]


@FORMS
def test_a_first_level_is_one_beam_that_may_go_anywhere(step):
    question = random_question(2, 1, 16, 30, 30)
    beams = Beams(
        torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.long), torch.full((2, 1), 30), torch.arange(30), width=30
    )
    question = dataclasses.replace(question, beams=beams)
    agrees(question, 10, step(question.states, question.weight, beams, 10))


@FORMS
def test_where_nothing_is_left_all_are_dead(step):
    question = random_question(2, 3, 8, 10, 4)
    beams = dataclasses.replace(question.beams, scores=torch.full((2, 3), -torch.inf))
    found = step(question.states, question.weight, beams, 5)
    assert (found.scores == -torch.inf).all() and (found.children == -1).all()
    assert not found.parents.any() and not found.codes.any()


@FORMS
def test_no_prompts(step):
    question = random_question(0, 3, 8, 10, 4)
    found = step(question.states, question.weight, question.beams, 5)
    assert found.scores.shape == (0, 5) and found.normalizers.shape == (0, 3)


@FORMS
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_show_in_the_normalizer_and_are_never_taken(step, bad):
    question = random_question(2, 3, 8, 10, 4)
    beams = dataclasses.replace(question.beams, scores=torch.zeros(2, 3), counts=torch.full((2, 3), 4))
    states = question.states.clone()
    states[0, 1, 3] = bad
    found = step(states, question.weight, beams, 5)
    assert found.normalizers.isfinite().tolist() == [[True, False, True], [True, True, True]]
    assert 1 not in found.parents[0] and found.scores.isfinite().all()


@FORMS
def test_strides_do_not_matter(step):
    question = random_question(2, 5, 20, 33, 7)
    wide = torch.zeros(5, 2, 60)
    wide[:, :, ::3] = question.states.transpose(0, 1)
    weight = question.weight.T.contiguous().T
    agrees(question, 6, step(wide[:, :, ::3].transpose(0, 1), weight, question.beams, 6))


@FORMS
def test_offsets_beyond_31_bits(step):
    question = random_question(3, 2, 8, 20, 4)
    memory = torch.empty(2**31 + 2**11, dtype=torch.float16)  # the system gives a page when it is touched
    states = memory.as_strided((3, 2, 8), (2**30, 8, 1))
    states.copy_(question.states)
    question = dataclasses.replace(question, states=states)
    agrees(question, 4, step(states, question.weight, question.beams, 4))


@FORMS
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": torch.zeros(2, 4)}, r"beams.scores: shape \(2, 4\), expected \(2, 3\)"),
        ({"allowed": torch.ones(2, 3, 5, dtype=torch.bool)}, r"beams.allowed: torch.bool \(2, 3, 5\), expected bool"),
        ({"width": 1}, r"count=5, expected 1..3 = 3 beams x 1"),
    ],
)
def test_what_does_not_fit_is_refused(step, changes, message):
    question = random_question(2, 3, 8, 10, 4)
    with pytest.raises(ValueError, match=message):
        step(question.states, question.weight, dataclasses.replace(question.beams, **changes), 5)


def test_more_beams_than_registers_hold_are_refused():
    question = random_question(1, 1025, 8, 10, 4)
    with pytest.raises(ValueError, match="M=1025 beams, expected at most 1024: use trie_step_torch"):
        trie_step(question.states, question.weight, question.beams, 5)
