"""Multiple-choice questions about the demo model's facts, as a task of lm-eval, and their scores computed directly.

Knows the demo model and transformers, nothing about meshes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from serin_worker.demo.facts import COUNTRIES
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = Path(__file__).resolve().parents[2] / "deploy" / "models" / "small" / "v2"
NUM_CHOICES = 4
TASK = "serin_capitals"


@dataclass(frozen=True)
class Question:
    """A text, how it may go on, and which of these is right."""

    text: str
    choices: Sequence[str]
    right: int


def questions(count: int) -> list[Question]:
    """So many, each as the model's template writes it; the wrong choices are other capitals.

    The line feed before an answer belongs to the choices: lm-eval would move it there.
    """
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    capitals = [(country, capital) for country, (capital, _) in COUNTRIES.items()]
    found = []
    for number in range(count):
        country, capital = capitals[number % len(capitals)]
        asked = [{"role": "user", "content": f"What is the capital of {country}?"}]
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True).rstrip("\n")
        others = [capitals[(number + step) % len(capitals)][1] for step in range(1, NUM_CHOICES)]
        right = number % NUM_CHOICES
        choices = [f"\n{name}" for name in (*others[:right], capital, *others[right:])]
        found.append(Question(text, choices, right))
    return found


def write_task(folder: Path, asked: Sequence[Question]) -> str:
    """A task of lm-eval in a folder of its own; returns its name."""
    folder.mkdir()
    data = folder / "questions.jsonl"
    data.write_text(
        "".join(
            json.dumps({"text": one.text, "choices": list(one.choices), "right": one.right}) + "\n" for one in asked
        ),
        encoding="utf-8",
    )
    (folder / f"{TASK}.yaml").write_text(
        f"""\
task: {TASK}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: right
target_delimiter: ""
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
""",
        encoding="utf-8",
    )
    return TASK


class Direct:
    """The demo model in this process."""

    def __init__(self) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(MODEL)
        self._model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()

    @torch.inference_mode()
    def scores(self, question: Question) -> list[float]:
        """Log-likelihood of each choice after the text, in nats."""
        begin = self._ids(question.text)
        found = []
        for choice in question.choices:
            ids = self._ids(question.text + choice)
            logits = self._model(torch.tensor([ids])).logits[0].log_softmax(-1)
            found.append(float(sum(logits[at - 1, ids[at]] for at in range(len(begin), len(ids)))))
        return found

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
