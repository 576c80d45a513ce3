"""CLLM4Rec's published files: matrices under their own numbers; pickles are refused, never loaded."""

from __future__ import annotations

import pickle
import random
import subprocess
import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.errors import InputError
from semid.tokenizer_exports.formats import read_cllm4rec, read_cllm4rec_reviews
from semid.tokenizer_exports.formats.cllm4rec import CONVERSION, PARTS


def write(folder, matrices, format="csr"):
    for name, matrix in zip(PARTS.values(), matrices, strict=True):
        scipy.sparse.save_npz(folder / name, scipy.sparse.coo_matrix(matrix).asformat(format))


@given(st.data())
@settings(deadline=None, max_examples=25)
def test_matrices_are_read_under_their_own_numbers(tmp_path_factory, data):
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    draws = np.random.default_rng(data.draw(st.integers(0, 99)))
    matrices = [draws.random(shape) * (draws.random(shape) < 0.3) for _ in PARTS]
    folder = tmp_path_factory.mktemp("published")
    write(folder, matrices, data.draw(st.sampled_from(["csr", "csc", "coo"])))
    split = read_cllm4rec(folder)
    assert (split.n_users, split.n_items) == shape
    for part, matrix in zip(PARTS, matrices, strict=True):
        met = getattr(split, part)
        assert [met.of(user).tolist() for user in range(shape[0])] == [np.flatnonzero(row).tolist() for row in matrix]
        if matrix.any():
            log = split.interactions(part)
            rows = log.map_to([str(item) for item in range(shape[1])])
            for place, user in enumerate(log.users):
                assert rows.rows[rows.offsets[place] : rows.offsets[place + 1]].tolist() == met.of(int(user)).tolist()


def test_zeros_and_repeats_do_not_count(tmp_path):
    repeated = scipy.sparse.coo_matrix(([1, 1, 0], ([0, 0, 1], [2, 2, 0])), (2, 3))
    write(tmp_path, [repeated] * 3, "coo")
    split = read_cllm4rec(tmp_path)
    assert split.train.of(0).tolist() == [2] and not len(split.train.of(1))
    with pytest.raises(InputError, match="should be one of train, valid, test"):
        split.interactions("val")


def test_what_is_no_matrix_is_refused(tmp_path):
    write(tmp_path, [np.eye(3), np.eye(3), np.eye(4)])
    with pytest.raises(InputError, match="different shapes"):
        read_cllm4rec(tmp_path)
    np.savez(tmp_path / "test_matrix.npz", matrix=np.array([{"a": 1}], object))
    with pytest.raises(InputError, match=r"test_matrix.npz: not a matrix that scipy.sparse.save_npz"):
        read_cllm4rec(tmp_path)
    (tmp_path / "test_matrix.npz").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(InputError, match=r"test_matrix.npz: not a matrix"):
        read_cllm4rec(tmp_path)
    (tmp_path / "test_matrix.npz").unlink()
    with pytest.raises(FileNotFoundError):
        read_cllm4rec(tmp_path)


def test_damaged_files_end_in_a_message(tmp_path):
    write(tmp_path, [np.eye(9)] * 3)
    path, draws = tmp_path / "train_matrix.npz", random.Random(0)
    whole = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(draws.randint(1, 6)):
            damaged[draws.randrange(len(damaged))] = draws.randrange(256)
        path.write_bytes(damaged[: draws.randrange(len(damaged)) if draws.random() < 0.2 else None])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read_cllm4rec(tmp_path)
            except InputError as error:
                assert str(tmp_path) in str(error)


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle was loaded')",)


def test_pickles_are_refused_unread_and_reviews_come_through_the_documented_line(tmp_path):
    (tmp_path / "review.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match="loading it would run its author's code") as caught:
        list(read_cllm4rec_reviews(tmp_path / "review.pkl"))
    assert CONVERSION in str(caught.value)
    reviews = [
        ["user_3 writes the following review for item_14:", 'Very "good",\nitem_2 é ☃'],
        ("user_0 writes the following review for item_0", ""),
    ]
    (tmp_path / "review.pkl").write_bytes(pickle.dumps(reviews))
    subprocess.run(CONVERSION, shell=True, cwd=tmp_path, check=True)
    expected = [(3, 14, reviews[0][1]), (0, 0, "")]
    assert list(read_cllm4rec_reviews(tmp_path / "review.jsonl")) == expected


def test_lines_that_are_no_review_are_named(tmp_path):
    path = tmp_path / "review.jsonl"
    good = '["user_1 writes the following review for item_2:", "fine"]'
    path.write_text("\n".join([good, "", "[1, 2]", '["user_x writes", "no"]', "{", '["a"]']), "utf-8")
    with pytest.raises(InputError) as caught:
        list(read_cllm4rec_reviews(path))
    shape = '["user_17 writes the following review for item_4:", "its text"]'
    assert str(caught.value) == f"{path}: 4 rows: {shape} expected. Lines 3, 4, 5, 6."
