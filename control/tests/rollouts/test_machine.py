"""What happens to a rollout by time, verdicts and people: each rule, then anything at all in any order."""

import math
from dataclasses import replace

import pytest
from control_rollouts import decision, rollout, sight
from hypothesis import given, settings
from hypothesis import strategies as st
from serin_control.judge.settings import Intent
from serin_control.judge.verdict import MetricVerdict, Verdict
from serin_control.lanes import WEIGHT_SUM
from serin_control.rollouts import machine, words
from serin_control.rollouts.machine import Circumstances, advance
from serin_control.rollouts.presence import Presence
from serin_control.rollouts.rollout import Hold, Rollout, State
from serin_control.rollouts.spec import OnScarce, Step

NOW = Circumstances(2000.0, 1.0)
GOOD, BAD = Verdict.PROMOTE, Verdict.ABORT


def begun(**changes) -> Rollout:
    """One whose canary has its first 1 %."""
    return advance(rollout(**changes), sight(), None, NOW).rollout


def test_a_good_version_is_promoted_step_by_step():
    """Each step needs its own fewest samples and a good verdict; the history gets a line for each."""
    now, said = rollout(), []
    for verdict in (None, decision(GOOD, 10), decision(GOOD, 15), decision(GOOD, 20, 7)):
        move = advance(now, sight(), verdict, NOW)
        now = move.rollout
        said.append((move.what, now.step, now.weight, str(now.state)))
    assert said == [
        ("step", 0, 100, "running"),
        ("step", 1, 2_500, "running"),
        ("", 1, 2_500, "running"),
        ("promote", 2, 10_000, "promoted"),
    ]
    assert now.reason == (
        "Promoted: errors 2.3 % against 0.1 % (+1.4..+3.1 points, 412 requests). 7 sessions saw it in 20 requests. "
        "All traffic is on v2."
    )
    assert "`serin rollback --model small`" in now.next


def test_a_bad_version_is_taken_back_in_plain_words():
    """At once, whatever its fewest samples are; the old version has everything."""
    move = advance(begun(), sight(), decision(BAD, 412, 38), NOW)
    assert (move.what, move.rollout.state, move.rollout.weight) == ("abort", State.ABORTED, 0)
    assert move.rollout.reason == (
        "Aborted at 1 %: errors 2.3 % against 0.1 % (+1.4..+3.1 points, 412 requests). 38 sessions saw it in 412 "
        "requests. All traffic is on v1."
    )


def test_a_bad_version_is_taken_back_also_while_paused_or_frozen():
    """Safety needs no permission."""
    paused = machine.pause(begun(), "lunch", 2000.0).rollout
    assert advance(paused, sight(), decision(BAD, 9), NOW).what == "abort"
    assert advance(begun(), sight(), decision(BAD, 9), Circumstances(2000.0, 1.0, frozen="xmas")).what == "abort"


def test_a_step_waits_for_capacity_then_pauses():
    """It says what is missing; the weight stays where it was."""
    first = advance(begun(), sight(1), decision(GOOD, 10), NOW).rollout
    assert (first.state, first.hold, first.weight) == (State.RUNNING, Hold.NOTHING, 2_500)  # 1 of 4 bears a quarter
    wide = begun(spec={"steps": (Step(100, 10, 100.0), Step(5_000, 10, 100.0))})
    waits = advance(wide, sight(1), decision(GOOD, 10), NOW).rollout
    assert (waits.state, waits.weight, waits.reason) == (State.WAITING, 100, "waiting: capacity 1 of 2 workers")
    late = advance(waits, sight(1), decision(GOOD, 10), Circumstances(2200.0, 100.0))
    assert (late.what, late.rollout.state, late.rollout.weight) == ("pause", State.PAUSED, 100)
    assert late.rollout.reason == "paused: capacity 1 of 2 workers after 100 s"
    short = machine.resume(late.rollout, sight(1), "ops: go on", 2300.0).rollout
    assert (short.state, short.reason, short.spent_s) == (State.WAITING, "waiting: capacity 1 of 2 workers", 0.0)
    again = machine.resume(late.rollout, sight(2), "ops: go on", 2300.0).rollout
    assert advance(again, sight(2), decision(GOOD, 10), NOW).rollout.weight == 5_000


def test_promotion_needs_capacity_for_everything():
    """The last verdict alone does not move traffic onto too few workers."""
    last = replace(begun(), step=1, weight=2_500)
    waits = advance(last, sight(3), decision(GOOD, 30), NOW).rollout
    assert (waits.state, waits.weight, waits.reason) == (State.WAITING, 2_500, "waiting: capacity 3 of 4 workers")


def test_a_canary_that_disappears_pauses_with_everything_on_stable():
    """Its weight is gone, and comes back only when a person resumes."""
    gone = advance(begun(), sight(0), decision(GOOD, 3), NOW)
    assert (gone.what, gone.rollout.state, gone.rollout.hold, gone.rollout.weight) == (
        "pause",
        State.PAUSED,
        Hold.CANARY,
        0,
    )
    assert gone.rollout.reason == "paused: v2 stopped taking calls: its traffic went back to v1"
    back = advance(gone.rollout, sight(), decision(GOOD, 3), NOW).rollout
    assert (back.state, back.weight) == (State.PAUSED, 0)
    assert (
        advance(machine.resume(back, sight(), "ops", 1.0).rollout, sight(), decision(GOOD, 3), NOW).rollout.weight
        == 100
    )


def test_a_canary_that_falls_silent_pauses_before_its_lease_ends():
    """A moment without its stream is borne; after half a second it counts as gone, also when it is there again."""
    moment, longer = (Circumstances(2000.0, 0.25, presence=Presence(silent_s=s)) for s in (0.25, machine.SILENT_S))
    assert advance(begun(), sight(silent=True), decision(GOOD, 3), moment).rollout.state is State.RUNNING
    assert machine.promote(begun(), sight(silent=True), "ops", 1.0).effective
    gone = advance(begun(), sight(silent=True), decision(GOOD, 3), longer)
    assert (gone.what, gone.rollout.hold, gone.rollout.weight) == ("pause", Hold.CANARY, 0)
    assert (
        gone.rollout.reason == "paused: v2 fell silent (it crashed, hung or was cut off): its traffic went back to v1"
    )
    assert not machine.promote(gone.rollout, sight(silent=True), "ops", 1.0).effective
    back = advance(gone.rollout, sight(), decision(GOOD, 3), NOW).rollout
    assert (back.state, back.weight) == (State.PAUSED, 0)


def test_a_canary_that_disappears_while_somebody_has_paused_gets_nothing_when_it_is_back():
    """Who paused it knew a canary that lived; the history says why it goes on, in the words of whoever resumes."""
    held = machine.pause(begun(), "ops: hold", 1.0).rollout
    gone = advance(held, sight(0), decision(GOOD, 3), NOW)
    assert (gone.what, gone.rollout.hold, gone.rollout.weight) == ("pause", Hold.CANARY, 0)
    back = advance(gone.rollout, sight(), decision(GOOD, 3), NOW)
    assert (back.what, back.rollout.weight) == ("", 0)
    resumed = machine.resume(back.rollout, sight(), "ops: it is mended", 2.0)
    assert (resumed.what, resumed.reason) == ("resume", "ops: it is mended")
    assert advance(resumed.rollout, sight(), decision(GOOD, 3), NOW).rollout.weight == 100


def test_a_silence_of_both_is_no_fault_of_the_canary():
    """Whoever cannot hear the old version either knows nothing about the new one, until leases end."""
    longer = Circumstances(2000.0, 0.25, presence=Presence(silent_s=machine.SILENT_S))
    both = advance(begun(), sight(silent=True, stable_silent=True), decision(requests=3), longer).rollout
    assert (both.state, both.weight) == (State.RUNNING, 100)


def test_a_resume_before_the_canary_is_back_waits_for_its_start():
    """It says that it waits, is not paused again, and goes on by itself; as long as the step may take."""
    gone = advance(begun(), sight(0), decision(requests=3), NOW).rollout
    assert gone.next == "`serin rollout resume small-1`, which waits until v2 takes calls, or `… abort small-1`"
    loading = sight(0, activity="loading weights 40%")
    for away, doing in ((loading, "loading weights 40%"), (sight(silent=True), "it is silent")):
        resumed = machine.resume(gone, away, "ops: go on", 2000.0)
        now = resumed.rollout
        assert (resumed.what, resumed.reason, resumed.effective) == ("resume", "ops: go on", True)
        assert (now.state, now.hold, now.reason) == (State.WAITING, Hold.START, f"waiting: v2 is not ready: {doing}")
        silent = Circumstances(2000.0, 1.0, presence=Presence(silent_s=9.0))
        waits = advance(now, away, decision(requests=3), silent)
        assert (waits.what, waits.rollout.state, waits.rollout.weight) == ("", State.WAITING, 0)
        frozen = advance(waits.rollout, away, decision(requests=3), replace(silent, frozen="xmas")).rollout
        assert advance(frozen, away, decision(requests=3), silent).what == ""
        assert advance(frozen, sight(), decision(requests=3), NOW).rollout.weight == 100
        late = advance(frozen, away, decision(requests=3), Circumstances(2200.0, 100.0)).rollout
        assert (late.state, late.reason.startswith("paused: v2 was not ready: ")) == (State.PAUSED, True)


def test_a_resume_before_anybody_saw_the_canary_go_waits_for_its_start():
    """It died while a person had paused: the resume knows from what is seen now; the next look does not undo it."""
    held = machine.pause(begun(), "ops: hold", 1.0).rollout
    resumed = machine.resume(held, sight(0), "ops: go on", 2000.0).rollout
    assert (resumed.state, resumed.hold, resumed.weight) == (State.WAITING, Hold.START, 0)
    waits = advance(resumed, sight(0), decision(requests=3), NOW).rollout
    assert (waits.state, waits.weight) == (State.WAITING, 0)
    assert advance(waits, sight(), decision(requests=3), NOW).rollout.weight == 100


def test_one_that_is_paused_says_who_answers():
    """Where traffic is follows what takes calls, not the weight; why it was paused stays true whatever comes after."""
    alone, neither = sight(stable_able=False), sight(0, stable_able=False)
    half = machine.pause(replace(begun(), weight=5_000), "lunch", 1.0, "ann").rollout
    gone = advance(begun(), sight(0), decision(requests=3), NOW).rollout
    back = advance(gone, sight(), decision(requests=3), NOW).rollout
    assert back.next.startswith("v2 takes calls again: `serin rollout resume small-1`, `… promote small-1` or")
    for paused in (half, back):
        seen = [advance(paused, arms, decision(requests=3), NOW).rollout for arms in (sight(), alone, neither, sight())]
        assert [words.traffic(one) for one in seen] == [
            "",
            "v1 takes no calls: v2 has all of them",
            "v1 takes no calls: nobody answers small",
            "",
        ]
        assert {(one.state, one.reason, one.weight) for one in seen} == {(State.PAUSED, paused.reason, paused.weight)}
    resumed = machine.resume(back, alone, "ops", 1.0).rollout
    assert (resumed.hold, resumed.reason) == (Hold.CAPACITY, "waiting: v1 takes no calls: v2 has all of them")
    late = advance(resumed, alone, decision(requests=3), Circumstances(2200.0, 100.0)).rollout
    assert late.reason == "paused: v1 took no calls after 100 s"
    laid_down = advance(replace(begun(), is_laid_down=True), sight(0), decision(requests=3), NOW).rollout
    assert words.traffic(laid_down) == "v2 takes no calls: v1 has all of them"


@pytest.mark.parametrize("stable_able", [True, False])
def test_a_persons_reason_outlives_what_happens_meanwhile(stable_able):
    """Why somebody has paused is still said when the canary dies, and untouched when both do."""
    held = machine.pause(begun(), "incident elsewhere", 1.0, "ann").rollout
    gone = advance(held, sight(0, stable_able=stable_able), decision(requests=3), NOW)
    if not stable_able:
        assert (gone.what, gone.rollout.reason, gone.rollout.weight) == ("", held.reason, 100)
        return
    assert gone.rollout.reason == (
        "paused: ann: incident elsewhere; v2 stopped taking calls: its traffic went back to v1"
    )
    assert (gone.what, gone.reason) == ("pause", "v2 stopped taking calls: its traffic went back to v1")


def test_when_both_are_gone_nothing_is_said_to_be_on_stable():
    """Nobody answers: that is what is said. Both suffered it: the canary goes on with the old version, by itself."""
    neither = sight(0, stable_able=False)
    gone = advance(begun(), neither, decision(GOOD, 3), NOW)
    assert (gone.what, gone.rollout.state, gone.rollout.weight) == ("", State.WAITING, 100)
    assert gone.rollout.reason == "waiting: v1 takes no calls: nobody answers small"
    back = advance(gone.rollout, sight(), decision(requests=3), NOW).rollout
    assert (back.state, back.weight, "takes no calls" in back.reason) == (State.RUNNING, 100, False)
    alone = advance(gone.rollout, sight(0), decision(requests=3), NOW).rollout
    assert (alone.state, alone.hold, alone.weight) == (State.PAUSED, Hold.CANARY, 0)
    fault = advance(begun(), sight(0, stable_able=False, canary_lane="dd" * 16), None, NOW).rollout
    assert fault.reason.endswith("v1 takes no calls: nobody answers small until v1 is back.")


@pytest.mark.parametrize(
    ("seen", "around", "said"),
    [
        (
            sight(0, canary_lane=""),
            Circumstances(2000.0, 1.0, presence=Presence(num_crashes=3)),
            "v2 crashed 3 times at its start",
        ),
        (
            sight(0, canary_lane=""),
            Circumstances(2000.0, 1.0, presence=Presence(absent_s=31.0)),
            "v2 was gone before it was ever ready",
        ),
        (sight(0, canary_lane="", is_mismatched=True), NOW, "tokenizer v1, worker v2 hold different vocabularies"),
        (sight(same_vocabulary=False), NOW, "v2 holds another vocabulary than v1"),
    ],
)
def test_what_can_never_work_is_taken_back_before_it_has_traffic(seen, around, said):
    """Crashes at start, other vocabularies: aborted with the reason, nobody saw it."""
    move = advance(rollout(), seen, None, around)
    assert move.what == "abort"
    assert move.reason.startswith(said)
    assert "Nobody saw it. All traffic is on v1." in move.rollout.reason


def test_other_files_under_the_same_version_are_taken_back():
    """What was judged so far was something else."""
    move = advance(begun(), sight(canary_lane="dd" * 16), None, NOW)
    assert (move.what, move.reason) == ("abort", "v2 is announced with other files than when the rollout began")


def test_a_canary_that_starts_is_waited_for():
    """It says what it does; the step's time bounds it."""
    starting = sight(0, canary_lane="", activity="loading weights 40%", starts=frozenset({("w0", 1.0)}))
    move = advance(rollout(), starting, None, NOW)
    assert (move.rollout.state, move.rollout.reason) == (
        State.WAITING,
        "waiting: v2 is not ready: loading weights 40%",
    )
    assert advance(move.rollout, starting, None, Circumstances(2200.0, 100.0)).what == "pause"


def test_scarce_data_waits_and_then_pauses_with_what_is_missing():
    """The default: until the step's time is over."""
    many = begun(spec={"steps": (Step(100, 2_000, 100.0), Step(2_500, 10, 100.0))})
    assert advance(many, sight(), decision(requests=30), NOW).rollout.reason == (
        "1,970 canary requests missing of 2,000"
    )
    few = advance(begun(), sight(), decision(requests=4), Circumstances(2050.0, 99.0)).rollout
    assert (few.state, few.reason) == (State.RUNNING, "6 canary requests missing of 10")
    move = advance(few, sight(), decision(requests=4), NOW)
    assert (move.what, move.rollout.hold) == ("pause", Hold.SAMPLES)
    assert move.reason == "not judged within 100 s: 6 canary requests missing of 10"


def test_scarce_data_can_ask_early_or_take_back():
    """`ask` pauses as soon as it is foreseen, `abort` takes back when the time is over."""
    ask = begun(spec={"on_scarce": OnScarce.ASK})
    assert advance(ask, sight(), decision(requests=1), Circumstances(2000.0, 5.0)).what == ""
    move = advance(ask, sight(), decision(requests=1), Circumstances(2000.0, 30.0))
    assert (move.what, move.reason) == ("pause", "data is scarce: 9 canary requests missing of 10")
    on_course = advance(ask, sight(), decision(requests=6), Circumstances(2000.0, 30.0))
    assert on_course.what == ""
    take = begun(spec={"on_scarce": OnScarce.ABORT})
    assert advance(take, sight(), decision(requests=1), Circumstances(2000.0, 99.0)).what == ""
    assert advance(take, sight(), decision(requests=1), Circumstances(2000.0, 100.0)).what == "abort"


def test_enough_samples_without_a_verdict_pause_too():
    """The judge could not tell within the step's time: the reason is the judge's."""
    move = advance(begun(), sight(), decision(requests=50, reason="first_token: 300 more"), Circumstances(1.0, 100.0))
    assert (move.what, move.reason) == ("pause", "not judged within 100 s: first_token: 300 more")


def test_unjudged_quality_is_promoted_by_a_person_only():
    """Everything else may be good: it waits, past the step's time too."""
    unjudged = decision(requests=50, errors=GOOD, quality_judged=False)
    now = begun()
    for _ in range(3):
        now = advance(now, sight(), unjudged, Circumstances(3000.0, 90.0)).rollout
    assert (now.state, now.hold, now.weight) == (State.WAITING, Hold.PROMOTER, 100)
    assert now.reason == "waiting: quality: not judged; everything else is as good as it must be: a person promotes"
    assert machine.promote(now, sight(), "looked at it", 1.0).what == "promote"


def test_manual_moves_by_itself_and_is_promoted_by_a_person():
    """The last step waits for somebody."""
    now = begun(spec={"manual": True})
    for requests in (10, 20, 30):
        now = advance(now, sight(), decision(GOOD, requests), NOW).rollout
    assert (now.state, now.hold, now.weight) == (State.WAITING, Hold.PROMOTER, 2_500)
    assert machine.promote(now, sight(), "ok", 1.0).rollout.state is State.PROMOTED


def test_a_freeze_stops_movement_and_time():
    """Traffic stays; the step's time does not pass."""
    now = begun()
    for _ in range(5):
        now = advance(now, sight(), decision(GOOD, 30), Circumstances(9000.0, 90.0, frozen="xmas")).rollout
    assert (now.state, now.hold, now.weight, now.spent_s) == (State.WAITING, Hold.FREEZE, 100, 0.0)
    assert now.reason == "waiting: frozen: xmas"
    assert advance(now, sight(), decision(GOOD, 30), NOW).rollout.weight == 2_500


def test_acts_on_an_ended_rollout_have_no_effect_and_say_so():
    """Aborting twice, promoting what is finished: a clear answer."""
    ended = machine.take_back(begun(), "ann: no", 2000.0).rollout
    for move in (
        machine.take_back(ended, "again", 2001.0),
        machine.promote(ended, sight(), "", 2001.0),
        machine.pause(ended, "", 2001.0),
        machine.resume(ended, sight(), "ops", 2001.0),
    ):
        assert (move.effective, move.what, move.rollout) == (False, "", ended)
        assert move.reason.startswith("it has ended: Aborted at 1 %: ann: no.")
    assert not machine.resume(begun(), sight(), "ops", 1.0).effective
    assert not machine.pause(machine.pause(begun(), "", 1.0).rollout, "", 2.0).effective
    assert not machine.promote(begun(), sight(0), "", 1.0).effective


def test_an_experiment_splits_and_promotes_nothing():
    """A fixed share until somebody stops it."""
    now = begun(spec={"intent": Intent.EXPERIMENT, "steps": (Step(3_000, 0, 1e6),)})
    now = advance(now, sight(), decision(GOOD, 10_000), NOW).rollout
    assert (now.state, now.weight) == (State.RUNNING, 3_000)
    assert not machine.promote(now, sight(), "", 1.0).effective
    assert machine.take_back(now, "done", 1.0).rollout.reason.startswith("Stopped at 30 %: done.")


def test_an_interval_that_is_open_can_be_stored():
    """JSON has no infinity."""
    wide = MetricVerdict("errors", Verdict.WAIT, math.nan, -math.inf, math.inf, 0, 0.0, 0.0, 0.01)
    said = replace(decision(), metrics=(wide,))
    (kept,) = advance(begun(), sight(), said, NOW).rollout.verdicts
    assert (kept.low, kept.difference, kept.high) == (-machine.WIDEST, 0.0, machine.WIDEST)


events = st.lists(
    st.tuples(
        st.sampled_from(["advance"] * 6 + ["pause", "resume", "promote", "abort"]),
        st.integers(0, 4),
        st.sampled_from(list(Verdict)),
        st.integers(0, 30),
        st.booleans(),
        st.floats(0.0, 60.0),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(events, st.booleans(), st.sampled_from(list(OnScarce)))
def test_whatever_happens_traffic_is_right(happened, manual, on_scarce):
    """Weights only rise to the step's own, ended means ended, no weight without capacity, every change has a reason."""
    now, requests = rollout(spec={"manual": manual, "on_scarce": on_scarce}), 0
    for act, num_workers, verdict, more, frozen, passed in happened:
        before, requests = now, requests + more * (now.weight > 0)
        seen = sight(num_workers)
        if act == "advance":
            around = Circumstances(before.changed_at + passed, passed, frozen="xmas" if frozen else "")
            move = advance(before, seen, decision(verdict, requests), around)
        elif act == "promote":
            move = machine.promote(before, seen, "by hand", 5.0)
        elif act == "resume":
            move = machine.resume(before, seen, "by hand", 5.0)
            if move.effective:  # what can be told at once is told at once
                assert advance(move.rollout, seen, decision(requests=requests), NOW).rollout.state is not State.PAUSED
        else:
            by_hand = {"pause": machine.pause, "abort": machine.take_back}
            move = by_hand[act](before, "why", 5.0)
        now = move.rollout
        if before.ended:
            assert now == before
            continue
        assert now.weight in (0, before.weight, now.current.weight)
        if now.state is State.ABORTED:
            assert now.weight == 0
        elif now.state is State.PROMOTED:
            assert now.weight == WEIGHT_SUM
        else:
            assert now.weight < WEIGHT_SUM
        if now.weight > before.weight and act == "advance":
            assert num_workers * 8 >= math.ceil(now.weight * 32 / WEIGHT_SUM)
            assert verdict is not Verdict.ABORT
            assert not frozen
        if (now.weight, now.state is State.PAUSED) != (before.weight, before.state is State.PAUSED):
            assert move.what
            assert now.reason
