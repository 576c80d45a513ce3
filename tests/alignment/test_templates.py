"""Template files: what is wrong with one is found when it is read, and said with task and number."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semid.errors import ConfigError
from semid.tokenizer_exports.alignment import read_templates
from semid.tokenizer_exports.alignment.config import TASKS
from semid.tokenizer_exports.alignment.templates import SHIPPED

GOOD = '[next-item]\ntemplates = [{ prompt = "After {history}?", completion = "{item}" }]\n'


def refusal(tmp_path, text: str, name: str = "mine.toml") -> str:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_templates(tmp_path / name)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_every_task_is_shipped_with_several_templates():
    templates = read_templates()
    assert set(templates.tasks) == set(TASKS)
    for task in TASKS:
        prompts = [templates.render(one, dict.fromkeys(one.needs, "?"))[0] for one in templates.of(task)]
        assert len(prompts) == len(set(prompts)) >= 6


def test_json_says_the_same_as_toml(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(tomllib.loads(SHIPPED.read_text())))
    assert read_templates(tmp_path / "mine.json").tasks == read_templates().tasks


def test_settings_stand_above_the_tasks(tmp_path):
    (tmp_path / "mine.toml").write_text(f'between-items = " | "\nsystem = "You know codes."\n{GOOD}')
    templates = read_templates(tmp_path / "mine.toml")
    values = {"history": ["<1>", "<2>"], "item": "<3>"}
    (template,) = templates.fitting("next-item", values)
    assert templates.render(template, values) == ("After <1> | <2>?", "<3>")
    assert templates.system == "You know codes."


@pytest.mark.parametrize(
    ("task", "prompt", "completion", "message"),
    [
        ("next-item", "After {histroy}", "{item}", "which next-item does not have there. Did you mean history?"),
        ("next-item", "After {history}", "{title}", "completion holds {title}, which next-item does not have there"),
        ("next-item", "Guess.", "{item}", "prompt should hold one of {history}, {user}"),
        ("next-item", "{history}", "something", "completion should hold one of {item}"),
        ("next-item", "{history} {item}", "{item}", "prompt holds {item}, which next-item does not have there"),
        ("id-to-text", "{item} {title}", "{title}", "{title} is the answer, and stands in the prompt"),
        ("id-to-text", "{title}", "{description}", "prompt should hold {item}"),
        ("search", "{history}", "{item}", "prompt should hold {query}"),
        ("negative", "{history}", "{item}", "prompt should hold one of {options_one_right}, {options_one_wrong}"),
        ("negative", "{options_one_wrong}", "{item}", "the answer to {options_one_wrong} is {wrong}"),
        ("negative", "{options_one_wrong} {options_one_right}", "{item}", "prompt should hold one of"),
        ("next-item", "{history", "{item}", "write a brace that is no placeholder twice"),
        ("next-item", "{history!r}", "{item}", "{history} should be a name alone"),
        ("next-item", "{}", "{item}", "{} should be a name alone"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_is_named(tmp_path, task, prompt, completion, message):
    listed = [{"prompt": prompt, "completion": completion}]
    found = refusal(tmp_path, json.dumps({task: {"templates": listed}}), "mine.json")
    assert found.startswith(f"mine.json: [{task}] template 1: ") and message in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[next-item", "mine.toml: is not TOML: "),
        (
            GOOD.replace("next-item", "next-itme"),
            "mine.toml: 'next-itme' is no task or setting. Did you mean next-item?",
        ),
        ("[next-item]\ntemplates = []\n", "[next-item] should hold templates = [...], at least one"),
        ("[next-item]\nprompts = []\n", "[next-item] should hold templates = [...], at least one"),
        ('[next-item]\ntemplates = [{ prompt = "{history}" }]\n', 'template 1 should be { prompt = "...", completion'),
        ('[next-item]\ntemplates = ["{history}"]\n', 'template 1 should be { prompt = "...", completion'),
        ("between-items = 3\n" + GOOD, "between-items should be a text"),
    ],
)
def test_a_file_that_cannot_be_is_named(tmp_path, text, message):
    assert message in refusal(tmp_path, text)


def test_a_missing_task_is_named_with_the_way_out(tmp_path):
    (tmp_path / "mine.toml").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"no templates for the task fusion. Add a table \[fusion\], or leave it out"):
        read_templates(tmp_path / "mine.toml").of("fusion")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none.toml: cannot be read: No such file"):
        read_templates(tmp_path / "none.toml")


def test_all_mistakes_come_at_once(tmp_path):
    text = json.dumps({"fusoin": {}, "next-item": {"templates": [{"prompt": "{a}", "completion": "{b}"}] * 3}})
    assert len(refusal(tmp_path, text, "mine.json").splitlines()) == 4


@given(st.text(), st.text())
def test_values_are_put_in_as_they_are(value, other):
    """Braces in titles are text, whatever they look like."""
    templates = read_templates()
    template = next(one for one in templates.of("next-item") if one.needs == {"history", "item"})
    prompt, completion = templates.render(template, {"history": [value, other], "item": value})
    assert f"{value}, {other}" in prompt and completion == value
