"""The benchmark of real rollouts: its builds apply, its accounts are right, its page says what was; one really runs."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

WAY = {"command": "serin rollout start …", "sessions": 40, "requests": 60, "verdicts": []}


def outcome(case: str, end: str, lost: int = 0, seconds: float = 200.0) -> dict:
    """A rollout as it is kept."""
    callers = {"num_requests": 500, "num_lost": lost, "num_injected": 0}
    known = {"case": case, "at": "2026-01-02T03:04:05Z", "machine": "a processor, 2 cores", "callers": callers}
    return {**WAY, **known, "end": end, "reason": "because", "seconds": seconds}


def test_every_patch_applies_to_the_worker_as_it_is(tmp_path: Path):
    """Each build differs from the package and is Python."""
    from rollout_real_builds import PATCHES, write_build

    for name, patches in PATCHES.items():
        package = write_build(name, tmp_path) / "serin_worker"
        for patch in patches:
            source = (package / patch.file).read_text(encoding="utf-8")
            assert patch.new in source
            compile(source, patch.file, "exec")


def test_a_patch_that_no_longer_applies_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A build without its defect would be a good version that is counted as a bad one."""
    import rollout_real_builds

    gone = (rollout_real_builds.Patch("loop.py", "no such line", "another"),)
    monkeypatch.setattr(rollout_real_builds, "PATCHES", {"gone": gone})
    with pytest.raises(rollout_real_builds.PatchDoesNotApply, match="no such line"):
        rollout_real_builds.write_build("gone", tmp_path)


@pytest.mark.parametrize("name", ["rounded", "zeroed", "vocabulary"])
def test_model_folders_differ_in_what_they_should(name: str, tmp_path: Path):
    """Weights or the tokenizer, never both."""
    from rollout_real_builds import MODELS, write_files

    made = write_files(name, tmp_path)
    changed = {file.name for file in made.iterdir() if file.read_bytes() != (MODELS / "v2" / file.name).read_bytes()}
    assert changed == ({"tokenizer.json"} if name == "vocabulary" else {"model.safetensors"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        'data: {"choices": [{"delta": {"content": "4"}, "finish_reason": null}], "system_fingerprint": "lane"}\n\n',
        'data: {"error": {"message": "gone"}}\n\ndata: [DONE]\n\n',
        'data: {"choices": [{"delta": {}, "finish_reason": null}], "system_fingerprint": "lane"}\n\ndata: [DONE]\n\n',
    ],
)
def test_a_stream_that_breaks_off_is_no_answer(text: str):
    """Whatever came before."""
    from rollout_real_load import NotWhole, whole_answer

    with pytest.raises(NotWhole):
        whole_answer(200, text, is_streamed=True)


def test_whole_answers_name_their_lane():
    """Streamed or not."""
    from rollout_real_load import whole_answer

    choice = {"finish_reason": "stop", "message": {"content": "42"}}
    plain = json.dumps({"choices": [choice], "system_fingerprint": "lane"})
    chunks = [
        {"delta": {"content": part}, "finish_reason": end} for part, end in (("4", None), ("2", None), ("", "stop"))
    ]
    lines = [f"data: {json.dumps({'choices': [chunk], 'system_fingerprint': 'lane'})}\n\n" for chunk in chunks]
    assert whole_answer(200, plain, is_streamed=False) == ("42", "lane")
    assert whole_answer(200, "".join(lines) + "data: [DONE]\n\n", is_streamed=True) == ("42", "lane")


def test_the_page_counts_right_ends_and_lost_requests(tmp_path: Path):
    """Also wrong ones, which are shown as such."""
    from rollout_real_report import write_report

    ended = [outcome("g", "promoted"), outcome("g", "undecided", seconds=600.0), outcome("b", "aborted", lost=2)]
    write_report(tmp_path, ended)
    page = (tmp_path / "real.md").read_text(encoding="utf-8")
    assert "**2 of 3 ended as they should; 2 of 1,500 requests were lost**" in page
    assert "| 2 | 1 | 1 undecided | 60 | 40 | 200 to 600 | 0 of 1,000 |" in page
    assert "| 1 | 1 |  | 60 | 40 | 200 | 2 of 500 |" in page
    assert "**undecided**" in page


def test_what_is_missing_is_run_in_turns(tmp_path: Path):
    """Results that lie there count."""
    from rollout_real import Book

    (tmp_path / "results.json").write_text(json.dumps([outcome("b", "aborted")]), encoding="utf-8")
    book = Book(tmp_path / "results.json", tmp_path)
    assert list(book.missing(["b", "g", "f"], 2)) == ["g", "f", "f", "b", "g", "f", "f"]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_real_rollouts_are_run_and_written_down(tmp_path: Path):
    """Of the worse demo model, which golden questions show at once; nobody loses an answer to it."""
    import rollout_real

    flags = ["--cases", "i", "--runs", "1", "--at-once", "1", "--out", str(tmp_path)]
    assert rollout_real.main(flags) == 0
    ended = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [(one["end"], one["callers"]["num_lost"]) for one in ended] == [("aborted", 0)] * 2
    assert all("golden set" in one["reason"] for one in ended)
    assert "**2 of 2 ended as they should" in (tmp_path / "real.md").read_text(encoding="utf-8")
