"""Tasks for a tool loop: fixed, held out, and each with one right way."""

import json
from itertools import islice

from serin_worker.demo.corpus import training_dialogues
from serin_worker.demo.tool_tasks import held_out_tasks


def test_tasks_are_fixed_and_different():
    """The same list each time, a longer one begins with a shorter one."""
    tasks = held_out_tasks(50)
    assert tasks == held_out_tasks(50)
    assert tasks[:20] == held_out_tasks(20)
    assert len({task.question for task in tasks}) == 50


def test_training_never_saw_their_subjects():
    """Nor their questions."""
    dialogues = islice(training_dialogues(9), 3000)
    seen = {item.entity for dialogue in dialogues for item in dialogue.items if item.kind == "tools"}
    asked = {f"{key}|{value}" for task in held_out_tasks(100) for key, value in task.arguments.items()}
    assert len(asked) > 50
    assert not asked & seen


def test_each_has_one_right_call():
    """Of a tool on offer, whatever the spacing of its arguments."""
    for task in held_out_tasks(30):
        assert task.name in {tool["function"]["name"] for tool in task.tools}
        assert next(iter(task.arguments.values())) in task.question
        assert task.is_call(task.name, json.dumps(task.arguments, separators=(",", ":")))
        assert not task.is_call(task.name, json.dumps({**task.arguments, "more": 1}))
        assert not task.is_call("other", json.dumps(task.arguments))
        assert not task.is_call(task.name, "{")
        assert all(str(value) in task.sentence for value in json.loads(task.reply).values())
