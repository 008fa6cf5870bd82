"""Clients that others wrote, each in an environment of its own, against the running mesh.

Long: each environment is installed once from the package index, under ``build/judges/``.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from environments import Environment
from harness.running_mesh import RunningMesh
from multiple_choice import MODEL, Direct, questions, write_task
from serin_worker.demo.tool_tasks import held_out_tasks

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

HERE = Path(__file__).parent
NUM_TASKS = 50
JUDGES = {
    "openai": Environment("openai", ("openai==3.52.0",)),
    "anthropic": Environment("anthropic", ("anthropic==2.11.0",)),
    "langchain": Environment("langchain", ("langchain-openai==1.7.4",)),
    "litellm": Environment("litellm", ("litellm==1.105.0",)),
    "instructor": Environment("instructor", ("instructor==1.17.0",)),
}
SCHEMATHESIS = Environment("schemathesis", ("schemathesis==4.32.5",))
LM_EVAL = Environment("lm-eval", ("lm-eval[api]==0.4.13", "transformers==5.23.0"))
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
NUM_QUESTIONS = 40
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@pytest.fixture
def where(mesh: RunningMesh, tmp_path: Path) -> dict[str, str]:
    """What a judge is told: the mesh, a key, tool tasks."""
    tasks = tmp_path / "tasks.json"
    tasks.write_text(json.dumps([asdict(task) for task in held_out_tasks(NUM_TASKS)]), encoding="utf-8")
    return {"SERIN_URL": mesh.rest, "SERIN_KEY": mesh.key, "SERIN_TASKS": str(tasks)}


@pytest.mark.parametrize("name", JUDGES)
def test_a_client_works_unchanged(where: dict[str, str], name: str):
    """Its own program says what it needs; it ends with 0."""
    done = JUDGES[name].run("python", str(HERE / f"judge_{name}.py"), env=where, timeout_s=600)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_the_document_keeps_its_word(where: dict[str, str], tmp_path: Path, mode: str):
    """schemathesis, with what the document allows and with what it does not: no 5xx, no undeclared status or shape."""
    bearer = f"Bearer {where['SERIN_KEY']}"
    document = httpx.get(f"{where['SERIN_URL']}/openapi.json", headers={"Authorization": bearer}, timeout=30).json()
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(answerable(document)), encoding="utf-8")
    done = SCHEMATHESIS.run(
        "schemathesis", "run", str(path), "--url", where["SERIN_URL"], "--header", f"Authorization: {bearer}",
        "--checks", CHECKS, "--phases", "examples,fuzzing", "--mode", mode, "-n", "60", "-w", "2", "--seed", "1",
        "--exclude-path-regex", "^/admin/keys", "--continue-on-failure", "--no-color", "--request-timeout", "60",
        env={}, timeout_s=1500,
    )  # fmt: skip
    print("\n".join(done.stdout.splitlines()[-30:]))
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr


def test_an_evaluation_finds_what_the_model_itself_would(where: dict[str, str], tmp_path: Path):
    """lm-eval through `local-completions` scores each choice as transformers does, and so finds the same accuracy."""
    asked = questions(NUM_QUESTIONS)
    task = write_task(tmp_path / "tasks", asked)
    arguments = ",".join(
        (
            f"model=small,base_url={where['SERIN_URL']}/v1/completions,num_concurrent=4,max_retries=1",
            f"tokenizer_backend=huggingface,tokenizer={MODEL},tokenized_requests=True,max_length=1024",
        )
    )
    done = LM_EVAL.run(
        "lm_eval", "--model", "local-completions", "--model_args", arguments, "--tasks", task, "--include_path",
        str(tmp_path / "tasks"), "--output_path", str(tmp_path / "out"), "--log_samples",
        env={"OPENAI_API_KEY": where["SERIN_KEY"], "HF_HOME": str(tmp_path / "hf"), **OFFLINE}, timeout_s=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (results,) = tmp_path.glob("out/**/results_*.json")
    (samples,) = tmp_path.glob("out/**/samples_*.jsonl")
    accuracy = json.loads(results.read_text(encoding="utf-8"))["results"][task]["acc,none"]
    direct = Direct()
    expected = [direct.scores(question) for question in asked]
    assert [_scores(line) for line in samples.read_text(encoding="utf-8").splitlines()] == [
        pytest.approx(scores, abs=1e-3) for scores in expected
    ]
    right = [max(range(len(s)), key=s.__getitem__) == q.right for s, q in zip(expected, asked, strict=True)]
    print(f"accuracy {accuracy:.3f}; computed directly {sum(right) / len(right):.3f}")
    assert accuracy == pytest.approx(sum(right) / len(right))


def _scores(line: str) -> list[float]:
    """Log-likelihoods of the choices, of a line that lm-eval wrote."""
    answers: Sequence[Any] = json.loads(line)["filtered_resps"]
    return [float(logprob) for logprob, _ in answers]


def answerable(document: dict[str, Any]) -> dict[str, Any]:
    """The document for a mesh of which one knows the models: without that, hardly a request gets beyond its name."""
    for schema in document["components"]["schemas"].values():
        model = schema.get("properties", {}).get("model")
        if model is not None and model.get("type") == "string":
            model["enum"] = ["small"]
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
            for limit in _integers(schema.get("properties", {}).get(name, {})):
                limit["maximum"] = 64
    return document


def _integers(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in (schema, *schema.get("anyOf", ())) if one.get("type") == "integer"]
