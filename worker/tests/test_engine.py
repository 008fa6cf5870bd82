"""The engine's promises that need no model: stopping, choices, refusals, fairness, priorities, failures."""

import pytest
import torch
from serin_worker import engine as engine_module
from serin_worker.errors import NotFinite, OutOfMemory, PromptTooLong, QueueFull, RequestRefused
from serin_worker.outputs import ChoiceFinished, Delta, Failed, Started, Summary
from serin_worker.request import GenerationRequest, PriorOutput, Sampling, ScoreRequest, Stopping
from serin_worker.testing import engine_without_model, run_dry, tokens_of

GREEDY = Sampling(temperature=0.0)


def request(name="r", prompt=(1, 2, 3), max_tokens=6, **changes) -> GenerationRequest:
    """A greedy request."""
    return GenerationRequest(name, prompt, GREEDY, Stopping(max_tokens=max_tokens), **changes)


def answer(runner, prompt, length) -> list[int]:
    """What the runner answers."""
    tokens = list(prompt)
    for _ in range(length):
        tokens.append(runner.next_token(tokens))
    return tokens[len(prompt) :]


def test_a_stop_id_is_the_last_token():
    """The id that ends a choice is sent, counted and named; end ids of the model count unless ignored."""
    engine, runner = engine_without_model()
    right = answer(runner, (1, 2, 3), 10)
    stop = right[3]
    first = right.index(stop)
    engine.add(GenerationRequest("r", (1, 2, 3), GREEDY, Stopping(max_tokens=10, stop_ids=frozenset({stop}))))
    outputs = run_dry(engine)["r"]
    assert tokens_of(outputs) == right[: first + 1]
    assert outputs[-2] == ChoiceFinished(0, "stop", stop)
    assert outputs[-1].num_output_tokens == first + 1


def test_ignore_eos_goes_on_past_the_models_end():
    """The model's own end ids end a choice, unless they are to be ignored."""
    _, runner = engine_without_model()
    right = answer(runner, (1, 2, 3), 10)
    engine, _ = engine_without_model(end_ids=frozenset({right[2]}))
    for name, ignore in (("ends", False), ("goes-on", True)):
        engine.add(GenerationRequest(name, (1, 2, 3), GREEDY, Stopping(max_tokens=10, ignore_eos=ignore)))
    outputs = run_dry(engine)
    assert tokens_of(outputs["ends"]) == right[: right.index(right[2]) + 1]
    assert tokens_of(outputs["goes-on"]) == right


def test_choices_share_the_prompts_computation():
    """Five choices of a prompt compute it once; each is started, finished and counted."""
    engine, runner = engine_without_model()
    engine.add(request(prompt=range(1, 22), num_choices=5))
    outputs = run_dry(engine)["r"]
    assert runner.num_computed_tokens == 21 + 5 * 5
    assert [tokens_of(outputs, choice) for choice in range(5)] == [answer(runner, range(1, 22), 6)] * 5
    assert sum(isinstance(output, Started) for output in outputs) == 1
    assert sum(isinstance(output, ChoiceFinished) for output in outputs) == 5
    assert outputs[-1].num_output_tokens == 30


def test_seeded_choices_differ_and_repeat():
    """With a temperature, choices draw apart from each other, and a second run repeats every one of them."""
    engine, _ = engine_without_model(vocabulary_size=50)
    runs = []
    for _ in range(2):
        sampling = Sampling(temperature=2.0, seed=7)
        engine.add(GenerationRequest("r", (1, 2), sampling, Stopping(max_tokens=8), num_choices=3))
        outputs = run_dry(engine)["r"]
        runs.append([tokens_of(outputs, choice) for choice in range(3)])
    assert runs[0] == runs[1]
    assert len({tuple(tokens) for tokens in runs[0]}) == 3


def test_finished_prior_choices_are_not_run_again():
    """A resumed request runs only what is unfinished; one that is complete ends at once."""
    engine, runner = engine_without_model()
    right = answer(runner, (1, 2, 3), 6)
    prior = (PriorOutput(0, right, is_finished=True), PriorOutput(1, right[:4]))
    engine.add(request(num_choices=2, prior=prior))
    outputs = run_dry(engine)["r"]
    assert tokens_of(outputs, 0) == []
    assert tokens_of(outputs, 1) == right[4:]
    assert [output.choice_index for output in outputs if isinstance(output, ChoiceFinished)] == [1]
    engine.add(request(prior=(PriorOutput(0, right, is_finished=True),)))
    assert [type(output) for output in run_dry(engine)["r"]] == [Started, Summary]
    engine.add(request(prior=(PriorOutput(0, right),)))
    assert [type(output) for output in run_dry(engine)["r"]] == [Started, ChoiceFinished, Summary]


def test_a_prompt_that_can_never_fit_is_refused_with_both_numbers():
    """The context, or all blocks together, bound prompt and prior output."""
    engine, _ = engine_without_model(num_blocks=4, block_size=4)
    with pytest.raises(PromptTooLong, match="has 16 tokens and the context holds 16"):
        engine.add(request(prompt=[1] * 16))
    with pytest.raises(PromptTooLong, match="has 17 tokens"):
        engine.add(request(prompt=[1] * 10, max_tokens=9, prior=(PriorOutput(0, [1] * 7),)))
    engine.add(request(prompt=[1] * 15, max_tokens=9))
    outputs = run_dry(engine)["r"]
    assert len(tokens_of(outputs)) == 1
    assert outputs[-2] == ChoiceFinished(0, "length")


def test_prior_output_that_is_complete_is_only_said_to_be_so():
    """A worker was lost between a choice's last token and the word that it ended: nothing is added to it.

    An end id ends it, the context's end does, and so does max_tokens; another choice goes on meanwhile.
    """
    engine, runner = engine_without_model(num_blocks=4, block_size=4)
    right = answer(runner, (1, 2, 3), 12)
    stop = right[3]
    ended = right[: right.index(stop) + 1]
    stopping = Stopping(max_tokens=10, stop_ids=frozenset({stop}))
    engine.add(GenerationRequest("r", (1, 2, 3), GREEDY, stopping, prior=[PriorOutput(0, ended)]))
    _, finished, summary = run_dry(engine)["r"]
    assert finished == ChoiceFinished(0, "stop", stop)
    assert summary.num_output_tokens == 0
    stopping = Stopping(max_tokens=10, min_tokens=len(ended), stop_ids=frozenset({stop}))
    engine.add(GenerationRequest("r", (1, 2, 3), GREEDY, stopping, prior=[PriorOutput(0, ended)]))
    assert tokens_of(run_dry(engine)["r"])  # an end id that min_tokens did not allow to end it yet
    full = answer(runner, (1, 2, 3), 13)
    for prior in (PriorOutput(0, full), PriorOutput(0, full, is_finished=True)):
        engine.add(request(max_tokens=13, num_choices=2, prior=[prior, PriorOutput(1, full[:5])]))
        outputs = run_dry(engine)["r"]
        assert tokens_of(outputs, 1) == full[5:]
        ends = {output.choice_index for output in outputs if isinstance(output, ChoiceFinished)}
        assert ends == ({1} if prior.is_finished else {0, 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": (1, 50)},
        {"prior": (PriorOutput(0, (-1,)),)},
        {"prompt": ()},
        {"num_choices": 0},
        {"num_choices": 2, "prior": (PriorOutput(2, ()),)},
        {"num_choices": 2, "prior": (PriorOutput(1, ()), PriorOutput(1, ()))},
        {"tenant_weight": 0.0},
    ],
)
def test_requests_that_make_no_sense_are_refused(changes):
    """Ids outside the vocabulary, choices that do not exist, and the like."""
    engine, _ = engine_without_model()
    with pytest.raises(RequestRefused):
        engine.add(request(**changes))
    with pytest.raises(RequestRefused):
        engine.add(ScoreRequest("s", (1,), (50,)))
    assert not engine.has_work


def test_a_full_queue_refuses():
    """Waiting requests are bounded."""
    engine, _ = engine_without_model()
    engine.bounds = type(engine.bounds)(100, 50, frozenset(), max_num_waiting=2)
    engine.add(request("a"))
    engine.add(request("b"))
    with pytest.raises(QueueFull):
        engine.add(request("c"))


def test_logits_that_are_not_finite_fail_their_request_only():
    """One request fails by name, its blocks are free and not trusted; the others finish as if alone."""
    engine, runner = engine_without_model()
    run = runner.run

    def poisoned(plan):
        result = run(plan)
        for work, rows in result.rows:
            if work.sequence.group.request_id == "bad":
                result.logits[rows] = torch.nan
        return result

    runner.run = poisoned
    engine.add(request("bad", prompt=[9] * 10, num_choices=2, namespace=b"n"))
    engine.add(request("good", namespace=b"n"))
    engine.add(ScoreRequest("score", (1, 2, 3), (4, 5)))
    outputs = run_dry(engine)
    assert isinstance(outputs["bad"][-1], Failed)
    assert isinstance(outputs["bad"][-1].error, NotFinite)
    assert sum(isinstance(output, Failed) for output in outputs["bad"]) == 1
    assert tokens_of(outputs["good"]) == answer(runner, (1, 2, 3), 6)
    assert len(outputs["score"][0].logprobs) == 2
    assert engine.counts.num_not_finite == 1
    assert engine.pool.num_free == engine.pool.num_blocks
    engine.add(request("again", prompt=[9] * 10, namespace=b"n"))
    assert run_dry(engine)["again"][0] == Started(10, 0)


def no_memory_on_the_cpu():
    """What torch raises on the CPU: the real thing, of an allocation that no machine can serve."""
    torch.empty(2**60, dtype=torch.uint8)


def no_memory_on_a_device():
    """What torch raises on a device."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("no_memory", [no_memory_on_the_cpu, no_memory_on_a_device])
@pytest.mark.parametrize("where", ["run", "draw", "score"])
def test_a_request_that_needs_too_much_memory_fails_alone(no_memory, where, monkeypatch):
    """In the model, in a draw or in a score: the others' answers are as if alone, and no block is lost."""
    engine, runner = engine_without_model()
    run, drawing, scoring = runner.run, engine_module.draw, engine_module.token_logprobs

    def limited_run(plan):
        if where == "run" and any(work.sequence.group.request_id == "big" for work in plan.work):
            no_memory()
        return run(plan)

    def limited_draw(logits, sequences, *rest):
        if where == "draw" and any(sequence.group.request_id == "big" for sequence in sequences):
            no_memory()
        return drawing(logits, sequences, *rest)

    def limited_score(logits, targets, counts):
        if where == "score" and list(targets) == [7, 7]:
            no_memory()
        return scoring(logits, targets, counts)

    runner.run = limited_run
    monkeypatch.setattr(engine_module, "draw", limited_draw)
    monkeypatch.setattr(engine_module, "token_logprobs", limited_score)
    engine.add(request("good", prompt=range(1, 11), namespace=b"n", num_choices=2))
    engine.add(ScoreRequest("big", (1, 2), (7, 7)) if where == "score" else request("big", num_choices=2))
    engine.add(ScoreRequest("score", (1, 2, 3), (4, 5)))
    engine.add(request("last"))
    outputs = run_dry(engine)
    failures = {name for name, one in outputs.items() if isinstance(one[-1], Failed)}
    assert failures == {"big"}
    assert isinstance(outputs["big"][-1].error, OutOfMemory)
    assert sum(isinstance(output, Failed) for output in outputs["big"]) == 1
    assert [tokens_of(outputs["good"], choice) for choice in range(2)] == [answer(runner, range(1, 11), 6)] * 2
    assert tokens_of(outputs["last"]) == answer(runner, (1, 2, 3), 6)
    assert len(outputs["score"][0].logprobs) == 2
    assert engine.counts.num_out_of_memory == 1
    assert engine.pool.num_free == engine.pool.num_blocks


def test_other_errors_of_the_model_are_not_taken_for_a_lack_of_memory():
    """They end the engine, as they did."""
    engine, runner = engine_without_model()

    def broken(plan):
        raise RuntimeError("shapes do not match")

    runner.run = broken
    engine.add(request("r"))
    with pytest.raises(RuntimeError, match="shapes"):
        engine.step()


def test_prefixes_stay_inside_their_namespace():
    """Another namespace finds nothing, and neither does a request without one."""
    engine, _ = engine_without_model()
    hits = []
    for namespace in (b"a", b"a", b"b", b"", b"b"):
        engine.add(request(prompt=range(1, 14), namespace=namespace))
        hits.append(run_dry(engine)["r"][0].num_cached_tokens)
    assert hits == [0, 12, 0, 0, 12]


def test_output_becomes_a_prefix_too():
    """A conversation's next turn finds the blocks of the answer before it."""
    engine, runner = engine_without_model()
    engine.add(request(prompt=(1, 2, 3), max_tokens=10, namespace=b"a"))
    run_dry(engine)
    turn = [1, 2, 3, *answer(runner, (1, 2, 3), 10), 7, 7]
    engine.add(request(prompt=turn, namespace=b"a"))
    assert run_dry(engine)["r"][0].num_cached_tokens == 12


def order_of_finish(engine) -> list[str]:
    """Request ids by their summaries."""
    order = []
    while engine.has_work:
        order += [name for name, output in engine.step() if isinstance(output, Summary)]
    return order


def test_a_prompt_that_is_less_urgent_waits_for_those_that_come_later():
    """A long score of low priority that has begun holds no newcomer up, not by one step, and is finished after all."""
    engine, _ = engine_without_model(max_num_tokens=8)
    engine.add(ScoreRequest("shadow", [1] * 40, [2, 3], priority=-100))
    engine.step()
    engine.add(request("first", prompt=[7] * 8, max_tokens=2))
    engine.add(request("second", prompt=[8] * 8, max_tokens=2))
    assert {name for name, output in engine.step() if isinstance(output, Delta)} == {"first"}
    assert {name for name, output in engine.step() if isinstance(output, Started)} == {"second"}
    outputs = run_dry(engine)
    assert len(outputs["shadow"][-1].logprobs) == 2


@pytest.mark.parametrize(("priority", "num_tokens"), [(0, 24), (-49, 24), (-50, 8), (-100, 8)])
def test_what_nobody_waits_for_takes_little_of_a_step_beside_answers(priority, num_tokens):
    """A prompt of very low priority slows running answers down by an eighth of what others may; alone it has it all."""
    engine, _ = engine_without_model(max_num_tokens=32)
    engine.add(ScoreRequest("alone", [1] * 40, [2], priority=priority))
    assert [work.num_tokens for work in engine.scheduler.schedule().work] == [32]

    engine, _ = engine_without_model(max_num_tokens=32)
    engine.add(request("answer", max_tokens=20))
    engine.step()
    engine.add(ScoreRequest("shadow", [1] * 40, [2], priority=priority))
    engine.scheduler.prefill_allowance = 24
    engine.add(ScoreRequest("another", [1] * 40, [2], priority=-100))
    plan = engine.scheduler.schedule()
    assert [work.num_tokens for work in plan.work if work.sequence.group.request_id != "another"] == [1, num_tokens]
    assert sum(work.num_tokens for work in plan.work if work.sequence.group.request.priority <= -50) <= 8


def test_a_score_leaves_nothing_behind():
    """Without a namespace nothing it computed can be found by anybody, and all its blocks are free."""
    engine, _ = engine_without_model()
    engine.add(ScoreRequest("shadow", [1] * 20, [2] * 20, priority=-100))
    free = engine.pool.num_free
    run_dry(engine)
    assert engine.pool.num_free == free == engine.pool.num_blocks
    engine.add(request("later", prompt=[1] * 20, namespace=b"n"))
    assert run_dry(engine)["later"][-1].num_cached_tokens == 0


def test_scores_displace_no_more_of_the_cache_than_one_text():
    """What others left to be found goes only where a text needs its place; the next text takes the same blocks."""
    engine, _ = engine_without_model(num_blocks=16)
    for number in range(4):
        engine.add(request(str(number), prompt=[number + 1] * 15, max_tokens=2, namespace=b"n"))
        run_dry(engine)
    engine.add(request("last", prompt=[9] * 15, max_tokens=2, namespace=b"n"))
    run_dry(engine)
    before = engine.pool.num_cached
    assert engine.pool.num_free == engine.pool.num_blocks
    for number in range(10):
        engine.add(ScoreRequest(f"shadow-{number}", [20] * 8, [21] * 4, priority=-100))
        run_dry(engine)
    assert before - engine.pool.num_cached <= 3
    engine.add(request("again", prompt=[9] * 15, max_tokens=2, namespace=b"n"))
    assert run_dry(engine)["again"][-1].num_cached_tokens == 12


def test_higher_priority_goes_first_and_takes_blocks():
    """A request of higher priority overtakes the queue, and preempts running ones if it must."""
    engine, _ = engine_without_model(num_blocks=8, max_num_sequences=2, max_num_tokens=16)
    for name in ("a", "b", "c"):
        engine.add(request(name, prompt=[ord(name) % 50] * 9, max_tokens=4))
    engine.step()
    engine.add(request("urgent", prompt=[7] * 9, max_tokens=4, priority=1))
    order = order_of_finish(engine)
    assert order == ["a", "urgent", "b", "c"]
    assert engine.counts.num_preemptions > 0


def test_one_tenants_queue_does_not_hold_up_another():
    """With 20 requests of one tenant queued, the other tenant's is among the next to run."""
    engine, _ = engine_without_model(max_num_sequences=2)
    for number in range(20):
        engine.add(request(f"many-{number}", tenant="many"))
    engine.step()
    engine.add(request("few", tenant="few"))
    assert order_of_finish(engine).index("few") <= 3


def test_a_tenant_of_whom_nothing_runs_takes_a_place_from_who_has_most():
    """All places are taken by long answers, more wait: the other tenant's request starts with the next step."""
    engine, runner = engine_without_model(max_num_sequences=3)
    for number in range(10):
        engine.add(request(f"many-{number}", tenant="many", max_tokens=30))
    for _ in range(4):
        engine.step()
    engine.add(request("few", tenant="few", max_tokens=2))
    assert "few" in {name for name, output in engine.step() if isinstance(output, Delta)}
    outputs = run_dry(engine)
    assert engine.counts.num_preemptions == 1
    assert tokens_of(outputs["many-9"]) == answer(runner, (1, 2, 3), 30)


def test_tenants_with_one_place_each_keep_it():
    """Who has one sequence running gives it up to nobody."""
    engine, _ = engine_without_model(max_num_sequences=2)
    for tenant in "abc":
        engine.add(request(tenant, tenant=tenant, max_tokens=20))
    run_dry(engine)
    assert engine.counts.num_preemptions == 0


def test_a_prompt_too_large_for_its_part_takes_no_place():
    """Where two share ten blocks, a prompt that needs six of them waits for its turn."""
    engine, _ = engine_without_model(max_num_sequences=2, num_blocks=10)
    for number in range(4):
        engine.add(request(f"many-{number}", tenant="many", max_tokens=8))
    engine.step()
    engine.add(request("few", prompt=range(1, 6 * engine.scheduler.limits.block_size), tenant="few", max_tokens=1))
    engine.step()
    assert engine.counts.num_preemptions == 0
    run_dry(engine)


def test_beside_a_queue_a_tenants_only_prompt_is_not_paced():
    """Answers of a tenant with a queue slow down for the other's prompt: both of its chunks go first and whole."""
    engine, _ = engine_without_model(max_num_sequences=4, max_num_tokens=20, num_blocks=64)
    for number in range(10):
        engine.add(request(f"many-{number}", prompt=range(1, 8), tenant="many", max_tokens=30))
    engine.step()
    engine.scheduler.prefill_allowance = 2
    engine.add(request("few", prompt=range(1, 25), tenant="few", max_tokens=2))
    taken = []
    while sum(taken) < 24:
        plan = engine.scheduler.schedule()
        engine.scheduler.commit(plan)
        taken.append(sum(work.num_tokens for work in plan.work if work.sequence.group.request_id == "few"))
    assert len(taken) == 2


def test_decodes_of_a_queuing_tenant_wait_one_step_for_anothers_prompt():
    """The prompt has a step alone, so that its first token comes sooner; never two steps in a row."""
    engine, _ = engine_without_model(max_num_sequences=4, max_num_tokens=20, num_blocks=64)
    for number in range(10):
        engine.add(request(f"many-{number}", prompt=range(1, 8), tenant="many", max_tokens=40))
    for _ in range(4):
        engine.step()
    engine.add(request("few", prompt=range(1, 50), tenant="few", max_tokens=2))
    made = []
    while "few" not in (made[-1] if made else ()):
        made.append([name for name, output in engine.step() if isinstance(output, Delta)])
    assert [len(names) for names in made] == [0, 3, 1]


def test_weights_share_the_engine():
    """While both queue, a tenant of weight 3 finishes about three requests for one of the other's."""
    engine, _ = engine_without_model(max_num_sequences=2)
    for number in range(40):
        engine.add(request(f"heavy-{number}", tenant="heavy", tenant_weight=3.0))
        engine.add(request(f"light-{number}", tenant="light"))
    first = order_of_finish(engine)[:32]
    assert 22 <= sum(name.startswith("heavy") for name in first) <= 26


def test_a_step_keeps_its_token_budget():
    """No step computes more tokens than allowed, and running sequences decode in every step beside a long prompt."""
    engine, runner = engine_without_model(max_num_tokens=8, num_blocks=128)
    engine.add(request("short", max_tokens=40))
    while not any(isinstance(output, Delta) for _, output in engine.step()):
        pass
    engine.add(request("long", prompt=[5] * 100, max_tokens=2))
    for _ in range(12):
        before = runner.num_computed_tokens
        outputs = engine.step()
        assert runner.num_computed_tokens - before <= 8
        assert [name for name, output in outputs if isinstance(output, Delta)].count("short") == 1
