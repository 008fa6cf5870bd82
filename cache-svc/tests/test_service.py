"""The cache over gRPC, watching real streams of twin workers."""

import asyncio
import contextlib

import pytest
from cache_requests import ANSWER, IDS, put, recall
from serin.cache.v1 import cache_pb2, cache_pb2_grpc
from serin.control.v1 import registry_pb2
from serin_cache_svc.assembly import assembled
from serin_cache_svc.formats import FORMAT, READ
from serin_cache_svc.lane_workers import worker_changes
from serin_cache_svc.service import CALLERS
from serin_cache_svc.store.memory_store import MemoryAnswerStore
from serin_mesh.authority import Authority
from serin_mesh.channels import connect
from serin_mesh.errors import MeshError, Reason
from serin_mesh.settings import ServiceSettings
from serin_mesh.testing import running
from worker_twin import BLOCK, SECRET, WorkerTwin, keys_of, lanes, serving


class Lanes:
    """What the control plane says, as the test wishes."""

    def __init__(self, *said):
        self._said = asyncio.Queue()
        for one in said:
            self.say(one)

    def say(self, snapshot):
        """Publish a snapshot."""
        self._said.put_nowait(snapshot)

    async def changes(self):
        """Snapshots in order."""
        while True:
            yield await self._said.get()


class Running:
    """A served cache and what stands around it."""

    def __init__(self, stub, cache, store, lanes):
        self.stub, self.cache, self.store, self.lanes = stub, cache, store, lanes

    async def knows(self, condition):
        """Wait until the index is as expected."""
        async with asyncio.timeout(60):
            while not condition(self.cache.index):  # noqa: ASYNC110 - the index has no event, nobody but tests waits
                await asyncio.sleep(0.005)

    async def holders(self, ids=IDS, group="acme"):
        """Who holds a prefix."""
        response = await self.stub.Recall(recall(ids, group))
        return [(holder.endpoint, holder.cached_token_count) for holder in response.holders]


@contextlib.asynccontextmanager
async def running_cache(*said, tls_dir=None):
    """A cache in this process, over the wire."""
    store, control = MemoryAnswerStore(), Lanes(*said)
    settings = ServiceSettings(tls_dir=tls_dir)
    async with assembled(store, worker_changes(control.changes()), settings, secret=SECRET) as cache:

        def register(server):
            cache_pb2_grpc.add_CacheServiceServicer_to_server(cache.service, server)

        async with (
            running(register, "cache", tls_dir=tls_dir, callers=CALLERS) as host,
            host.connect() as channel,
        ):
            running_one = Running(cache_pb2_grpc.CacheServiceStub(channel), cache, store, control)
            running_one.host = host
            yield running_one


async def refused(call):
    """The error a call ends in."""
    with pytest.raises(MeshError) as caught:
        await call
    return caught.value


async def test_holders_come_longest_first_and_follow_changes():
    """Snapshots in parts, stores and removals of two workers all arrive in the index."""
    one, two = WorkerTwin(*keys_of("acme", IDS)), WorkerTwin(*keys_of("acme", IDS)[:1])
    async with serving(one) as a, serving(two) as b, running_cache(lanes(a, b)) as cache:
        await cache.knows(lambda index: index.num_blocks == 4)
        assert await cache.holders() == [(a, 3 * BLOCK), (b, BLOCK)]
        one.remove(*keys_of("acme", IDS)[1:])
        two.store(*keys_of("acme", IDS)[1:2])
        await cache.knows(lambda index: index.num_blocks == 3)
        assert await cache.holders() == [(b, 2 * BLOCK), (a, BLOCK)]
        assert one.num_watches == two.num_watches == 1


async def test_one_tenant_never_sees_anothers_prefix():
    """The same prompt under another group, or nobody's, has no holder."""
    twin = WorkerTwin(*keys_of("acme", IDS))
    async with serving(twin) as a, running_cache(lanes(a)) as cache:
        await cache.knows(lambda index: index.num_blocks == 3)
        assert await cache.holders() == [(a, 3 * BLOCK)]
        assert await cache.holders(group="rival") == []
        assert await cache.holders(group="") == []


async def test_a_gap_or_a_new_epoch_starts_over():
    """A lost message and a restart in the middle of a stream make the cache watch again and know the truth."""
    keys = keys_of("acme", IDS)
    twin = WorkerTwin(keys[0])
    async with serving(twin) as a, running_cache(lanes(a)) as cache:
        await cache.knows(lambda index: index.num_blocks == 1)
        twin.skip = 1
        twin.store(keys[1])
        await cache.knows(lambda index: twin.num_watches == 2 and index.num_blocks == 2)
        assert await cache.holders() == [(a, 2 * BLOCK)]
        twin.restart(keys[2])
        await cache.knows(lambda index: twin.num_watches == 3 and index.num_blocks == 3)
        assert await cache.holders() == [(a, 3 * BLOCK)]


async def test_a_worker_that_goes_is_forgotten():
    """By the control plane's word, by draining, by dying; another instance in its place starts over."""
    twin = WorkerTwin(*keys_of("acme", IDS))
    async with running_cache() as cache:
        async with serving(twin) as a:
            cache.lanes.say(lanes(a))
            await cache.knows(lambda index: index.num_workers == 1)
            cache.lanes.say(lanes(a, state=registry_pb2.INSTANCE_STATE_SUSPECT))
            cache.lanes.say(lanes())
            await cache.knows(lambda index: index.num_workers == 0)
            cache.lanes.say(lanes(a, state=registry_pb2.INSTANCE_STATE_DRAINING))
            cache.lanes.say(lanes(a))
            await cache.knows(lambda index: index.num_workers == 1)
            assert twin.num_watches == 2
            cache.lanes.say(lanes(a, instance="another"))
            await cache.knows(lambda index: twin.num_watches == 3 and index.num_workers == 1)
        await cache.knows(lambda index: index.num_workers == 0)
        assert await cache.holders() == []


async def test_answers_over_the_wire():
    """An answer comes back whole to its own tenant when it is allowed, and counts are kept."""
    async with running_cache() as cache:
        assert (await cache.stub.PutAnswer(put())).stored
        assert (await cache.stub.Recall(recall(allow_answer=True))).answer == ANSWER
        assert not (await cache.stub.Recall(recall())).HasField("answer")
        assert not (await cache.stub.Recall(recall(group="rival", allow_answer=True))).HasField("answer")
        assert not (await cache.stub.Recall(recall(ids=IDS[1:], allow_answer=True))).HasField("answer")
        stats = await cache.stub.GetStats(cache_pb2.GetStatsRequest())
        assert (stats.answer_hit_count, stats.answer_miss_count) == (1, 2)
        assert (stats.prefix_hit_count, stats.prefix_miss_count) == (0, 3)
        assert stats.store_available
        assert (stats.written_format, list(stats.read_formats)) == (FORMAT, list(READ))
        cache.store.down = True
        unknown = await cache.stub.Recall(recall(allow_answer=True))
        assert (unknown.HasField("answer"), unknown.store_failed) == (False, True)
        assert not (await cache.stub.Recall(recall())).store_failed
        assert not (await cache.stub.PutAnswer(put())).stored
        assert not (await cache.stub.GetStats(cache_pb2.GetStatsRequest())).store_available


@pytest.mark.parametrize(
    ("request_", "parameter"),
    [
        (put(temperature=1.0), "key.sampling"),
        (put(answer=cache_pb2.StoredAnswer()), "answer.choices"),
        (put(choice_count=2), "answer.choices"),
        (put(answer=cache_pb2.StoredAnswer(choices=[cache_pb2.StoredChoice()])), "answer.choices[0].finish_reason"),
    ],
)
async def test_answers_that_may_not_be_kept_are_refused(request_, parameter):
    """Drawn answers, and those that do not fit their request, by the field's name."""
    async with running_cache() as cache:
        error = await refused(cache.stub.PutAnswer(request_))
    assert (error.reason, error.metadata["parameter"]) == (Reason.PARAMETER_INVALID, parameter)


async def test_purge_deletes_everywhere_and_says_so():
    """Answers and blocks of one group go; a worker that cannot be reached is named; others keep theirs."""
    twin, leaving = WorkerTwin(*keys_of("acme", IDS)), WorkerTwin(*keys_of("acme", IDS))
    async with serving(twin) as a, serving(leaving) as b, running_cache() as cache:
        error = await refused(cache.stub.Purge(cache_pb2.PurgeRequest(cache_group="acme")))
        assert error.reason is Reason.NOT_READY
        said = lanes(a, "127.0.0.1:1")
        said.models[0].lanes[0].members[1].endpoints.extend(
            lanes(b, state=registry_pb2.INSTANCE_STATE_DRAINING).models[0].lanes[0].members[1].endpoints
        )
        cache.lanes.say(said)
        await cache.knows(lambda index: index.num_blocks == 3)
        await cache.stub.PutAnswer(put())
        await cache.stub.PutAnswer(put(group="rival"))
        receipt = await cache.stub.Purge(cache_pb2.PurgeRequest(cache_group="acme"), timeout=20)
        assert receipt.receipt_id.startswith("purge-")
        assert (receipt.answer_count, receipt.block_count) == (1, 6)
        assert list(receipt.unreached_workers) == ["127.0.0.1:1"]
        assert twin.purged == leaving.purged == ["acme"]
        await cache.knows(lambda index: index.num_blocks == 0)
        assert not (await cache.stub.Recall(recall(allow_answer=True))).HasField("answer")
        assert (await cache.stub.Recall(recall(group="rival", allow_answer=True))).HasField("answer")
        assert (await refused(cache.stub.Purge(cache_pb2.PurgeRequest()))).metadata["parameter"] == "cache_group"


async def test_purge_does_not_pretend():
    """With the store down there is no receipt, and the workers have been asked all the same."""
    twin = WorkerTwin(*keys_of("acme", IDS))
    async with serving(twin) as a, running_cache(lanes(a)) as cache:
        await cache.knows(lambda index: index.num_blocks == 3)
        cache.store.down = True
        error = await refused(cache.stub.Purge(cache_pb2.PurgeRequest(cache_group="acme")))
        assert error.reason is Reason.UPSTREAM_UNAVAILABLE
        assert twin.purged == ["acme"]


@pytest.mark.parametrize("service", ["gateway", "worker", "cli"])
async def test_callers_are_checked_by_certificate(service, tmp_path):
    """Only the gateway may recall and store; purging is for the gateway and the command line."""
    authority = Authority.create()
    for name in ("cache", service):
        authority.issue(name, tmp_path / name)
    settings = ServiceSettings(tls_dir=tmp_path / service)
    async with (
        running_cache(lanes(), tls_dir=tmp_path / "cache") as cache,
        connect(cache.host.address, settings, service="cache") as channel,
    ):
        stub = cache_pb2_grpc.CacheServiceStub(channel)
        allowed = {"gateway": {"Recall", "PutAnswer", "Purge"}, "worker": set(), "cli": {"Purge"}}[service]
        requests = {"Recall": recall(), "PutAnswer": put(), "Purge": cache_pb2.PurgeRequest(cache_group="acme")}
        for method, request in requests.items():
            call = getattr(stub, method)(request)
            if method in allowed:
                await call
            else:
                assert (await refused(call)).reason is Reason.IDENTITY_REFUSED
