"""The table of attacks: each ends as it must, at once, and nobody else notices anything."""

from collections import Counter

import grpc
import pytest
import pytest_asyncio
from harness.instances import await_instances
from harness.running_mesh import RunningMesh
from harness.wire_errors import error_info
from security.attack import ANSWERED, MARK, MESSAGES, Attack, Raw, Rest, Rpc
from security.bystander import Bystander
from security.senders import Outcome, Senders
from security.tables import fields, keys, languages, paths, smuggling
from security.vitals import Vitals
from serin_gateway.rest.api import rest_endpoints
from serin_mesh.errors import STATUS, Reason
from serin_mesh.readiness import Readiness
from serin_tokenizer_svc.grammar_pool import GrammarLimits

pytestmark = pytest.mark.asyncio(loop_scope="module")

ATTACKS = [attack for table in (paths, smuggling, keys, fields, languages) for attack in table.attacks()]
GROUPS = list(dict.fromkeys((attack.kind, type(attack.by)) for attack in ATTACKS))
MAX_S = 1.0
"""Ten times what is promised of a mesh that has the machine to itself."""
CHECK_S = GrammarLimits().timeout_s
"""A constraint that is worth its check may cost that too: on a busy machine as much as a check is given."""
TRIES = 5
"""The best of them counts: what else this machine does is not an attack's doing."""
MEMORY_SLACK = 96 << 20
"""Between two looks at a process: arenas, caches of connections, other tests' requests to the same mesh."""
PEAK_SLACK = 192 << 20
CLOSED = {
    "ok",
    *(reason.value for reason in Reason),
    *(code.name for code in grpc.StatusCode),
    *(endpoint.operation for endpoint in rest_endpoints(Readiness()).all),
    *("count_tokens", "embed", "feedback", "generate", "models.list"),  # operations over gRPC
    *("admitted", "refused"),  # by a gateway whose state Redis was away
}
"""Values of labels that exist without any client."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def at_first(mesh: RunningMesh, viewer_key: str, senders: Senders, bystander: Bystander) -> Vitals:
    """The mesh before the table, warm: one attack in twenty was made once already."""
    for attack in ATTACKS[::20]:
        await senders.send(attack)
    return await Vitals.of(mesh, viewer_key)


async def test_the_table_is_whole():
    """At least 300 rows, each with a name of its own, at least 100 over each door and on the socket."""
    names = Counter(attack.id for attack in ATTACKS)
    assert max(names.values()) == 1, names.most_common(3)
    assert len(ATTACKS) >= 300
    doors = Counter(type(attack.by) for attack in ATTACKS)
    assert min(doors[Rest], doors[Rpc], doors[Raw]) >= 100, doors


@pytest.mark.parametrize(("kind", "door"), GROUPS, ids=lambda one: one if isinstance(one, str) else one.__name__)
async def test_every_attack(kind: str, door: type, senders: Senders, bystander: Bystander, mesh: RunningMesh):
    """The right end, within a second; and whoever asks beside it hears what they always hear."""
    wrong = {}
    for attack in ATTACKS:
        if (attack.kind, type(attack.by)) == (kind, door):
            try:
                await fail_harmlessly(senders, attack, mesh.key)
                assert bystander.wrong == []
            except AssertionError as problem:
                wrong[attack.id] = str(problem)
    assert wrong == {}
    await bystander.answers_again()
    assert bystander.wrong == []


async def fail_harmlessly(senders: Senders, attack: Attack, key: str) -> None:
    """Make an attack, again if it took long, and check each end of it."""
    best_s, most_s = float("inf"), MAX_S + (CHECK_S if attack.kind == languages.GRAMMARS else 0)
    for _ in range(TRIES):
        outcome = await senders.send(attack)
        best_s = min(best_s, outcome.seconds)
        check(attack, outcome)
        assert key not in outcome.message
        assert "Traceback" not in outcome.message
        if best_s < most_s:
            return
    raise AssertionError(f"took {best_s:.2f} s")


def check(attack: Attack, outcome: Outcome) -> None:
    """Whether an attack ended as it must."""
    by, told = attack.by, outcome.message[:600]
    if isinstance(by, Raw):
        assert outcome.status in by.statuses, told
        assert len(outcome.statuses) == by.num_answers, told
        return
    assert outcome.reason in [reason and reason.value for reason in attack.ends], told
    if outcome.reason is ANSWERED:
        return
    row = STATUS[Reason(outcome.reason)]
    if isinstance(by, Rpc):
        assert outcome.status is row.grpc
        return
    assert outcome.status == row.http
    assert outcome.shape == ("anthropic" if by.path.startswith(MESSAGES) else "openai")


async def test_methods_that_nobody_serves(mesh: RunningMesh):
    """On every gRPC port: UNIMPLEMENTED with its `ErrorInfo`, whatever it is called; the gateway says so to its own."""
    metadata = (("authorization", f"Bearer {mesh.key}"),)
    addresses = {one.registration.endpoint for one in await await_instances(mesh, bool)} | {mesh.grpc, mesh.control}
    paths = [f"/{MARK}", f"/{MARK}.Service/Method", f"/serin.inference.v1.InferenceService/{MARK}", f"/{MARK}/x/y", "/"]
    for address in sorted(addresses):
        async with grpc.aio.insecure_channel(address) as channel:
            for path in paths:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await channel.unary_unary(path)(b"", timeout=60, metadata=metadata)
                assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
                assert error_info(refused.value).reason == Reason.NOT_IMPLEMENTED
                assert MARK not in (refused.value.details() or "")


async def test_nothing_was_harmed(mesh: RunningMesh, viewer_key: str, bystander: Bystander, at_first: Vitals):
    """Same processes, memory flat, no series that a client made, and the bystander is still answered."""
    await bystander.answers_again()
    assert bystander.wrong == []
    now = await Vitals.of(mesh, viewer_key)
    assert now.pids == at_first.pids
    for name in now.pids:
        grown = now.resident_bytes[name] - at_first.resident_bytes[name]
        peak = now.peak_bytes[name] - at_first.peak_bytes[name]
        print(f"{name}: {grown >> 20:+} MiB now, {peak >> 20:+} MiB at its peak")
        assert grown < MEMORY_SLACK, name
        assert peak < PEAK_SLACK, name
    # Others use this mesh too, so a series may be new; but only of names that exist without any client.
    known = {value for _, labels in at_first.series for _, value in labels} | CLOSED
    new = {one for one in now.series - at_first.series if not {value for _, value in one[1]} <= known}
    # Methods are named after servers' own handlers; the test above called others.
    assert [one for one in new if not dict(one[1]).get("method", "").startswith("/serin.")] == []
    assert MARK not in str(now.series)
    print(f"series: {len(at_first.series)} at first, {len(now.series)} now")
