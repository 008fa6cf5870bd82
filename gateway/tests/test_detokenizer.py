"""Growing text over real tokenizer services: shared streams, and going on when a replica dies, hangs or drains."""

import asyncio
import itertools
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
import pytest_asyncio
from serin.tokenizer.v1 import tokenizer_pb2_grpc
from serin_gateway.settings import GatewaySettings
from serin_gateway.testing import small_lane
from serin_gateway.tokenizer import CallScope
from serin_gateway.upstream import detokenize_stream, detokenizer
from serin_gateway.upstream.detokenizer import MAX_STREAMS, GrpcDetokenizer
from serin_gateway.upstream.targets import Channels, FixedTargets
from serin_mesh.call import LANE_KEY
from serin_mesh.errors import MeshError, Reason
from serin_mesh.testing import running
from serin_tokenizer_svc.service import TokenizerService
from whole_path import assembled_small, write_tokenizer

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Listener:
    """A sink that keeps what it hears."""

    def __init__(self):
        self.text = ""
        self.news = []
        self.error = None
        self.over = asyncio.Event()
        self.heard = asyncio.Event()

    def decoded(self, news):
        """Text, or the end."""
        self.text += news.text
        self.news.append(news)
        self.heard.set()
        if news.closed:
            self.over.set()

    def sent(self):
        """Nothing to keep."""

    def failed(self, error):
        """The end."""
        self.error = error
        self.over.set()


class Flaky(TokenizerService):
    """The real service, which a test may cut off or make deaf."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        self.num_streams = 0
        self.cut = asyncio.Event()
        self.deaf = False
        self.heard = []
        self.opened = asyncio.Event()

    async def until_streams(self, count):
        """Wait until so many streams have been opened here."""
        while self.num_streams < count:
            self.opened.clear()
            await self.opened.wait()

    async def Detokenize(self, request_iterator, context):  # noqa: N802
        """As the real one, until it is cut."""
        self.num_streams += 1
        self.opened.set()
        real = super().Detokenize(self._heard(request_iterator), context)
        cut = reply = asyncio.ensure_future(self.cut.wait())
        try:
            while True:
                reply = asyncio.ensure_future(anext(real, None))
                done, _ = await asyncio.wait((reply, cut), return_when=asyncio.FIRST_COMPLETED)
                if reply not in done or self.cut.is_set():  # who is cut off says nothing more, be it ready or not
                    raise MeshError(Reason.UPSTREAM_UNAVAILABLE, "cut off")
                if (said := reply.result()) is None:
                    return
                yield said
        finally:
            for task in (reply, cut):
                task.cancel()
            await asyncio.gather(reply, cut, return_exceptions=True)
            await real.aclose()

    async def _heard(self, frames):
        async for frame in frames:
            if self.deaf:
                await asyncio.Event().wait()
            self.heard.append([one.WhichOneof("frame") for one in frame.frames])
            yield frame


class InTurn(Channels):
    """Channels to several replicas, each asked in its turn, as the control plane's routes would have it."""

    def __init__(self, replicas):
        self._replicas = replicas
        self._turns = itertools.cycle(replicas)

    def stub(self, make, service, model=""):
        """The next one's."""
        return next(self._turns).stub(make, service, model)

    async def close(self):
        """All of them."""
        for replica in self._replicas:
            await replica.close()


class Routed(TokenizerService):
    """Two lanes behind one target, routed as the control plane routes them: whoever names a lane meets it or nobody."""

    def __init__(self, own, other):
        super().__init__()
        self.own = own
        self.other = other
        self.is_lane_there = True
        self.asked = []
        self._news = asyncio.Event()

    async def until_asked(self, *ways):
        """Wait until the first calls have met these: ``own`` and ``other`` tokenizers, or ``nobody``."""
        while len(self.asked) < len(ways):
            self._news.clear()
            await self._news.wait()
        assert self.asked[: len(ways)] == list(ways)

    async def Detokenize(self, request_iterator, context):  # noqa: N802
        """By the lane that it names; all weight is on the other one."""
        way = "other"
        if LANE_KEY in dict(context.invocation_metadata()):
            way = "own" if self.is_lane_there else "nobody"
        self.asked.append(way)
        self._news.set()
        if way == "nobody":
            raise MeshError(Reason.LANE_GONE, "the lane that the call names is not served any more")
        async for response in (self.own if way == "own" else self.other).Detokenize(request_iterator, context):
            yield response


class Setting:
    """Two replicas behind one target."""

    def __init__(self, scope, services, detokenizer, ids, pauses):
        self.pauses = pauses
        self.scope = scope
        self.services = services
        self.detokenizer = detokenizer
        self.ids = ids

    def open(self, **options):
        """A sequence and who listens to it."""
        listener = Listener()
        return self.detokenizer.open(self.scope, listener, **options), listener


def served(service):
    """A tokenizer service on a free port."""
    return running(
        lambda server: tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(service, server), "tokenizer"
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tokenizer(tmp_path_factory):
    """What all services here answer with, and its vocabulary: starting its processes takes longest."""
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary = write_tokenizer(folder)
    async with assembled_small(folder) as assembled:
        yield assembled, vocabulary


@pytest_asyncio.fixture(loop_scope="module")
async def setting(tokenizer):
    """Two real tokenizer services."""
    assembled, vocabulary = tokenizer
    async with AsyncExitStack() as stack:
        services = [Flaky(assembled) for _ in range(2)]
        hosts = [await stack.enter_async_context(served(service)) for service in services]
        channels = InTurn([Channels(GatewaySettings(), FixedTargets({"tokenizer.small": h.address})) for h in hosts])
        stack.push_async_callback(channels.close)
        pauses = []
        growing = GrpcDetokenizer(channels, lambda model, pause_s: pauses.append((model, pause_s)))
        stack.push_async_callback(growing.close)
        scope = CallScope("req", "small", small_lane(vocabulary_digest=assembled.identity.vocabulary_digest), "t", 30.0)
        ids = lambda text: [vocabulary["Ġ" if c == " " else c] for c in text]  # noqa: E731
        yield Setting(scope, services, growing, ids, pauses)


@pytest_asyncio.fixture(loop_scope="module")
async def routed(setting):
    """The first service as its lane's only one, beside another lane's, whose vocabulary is the same or is not."""
    own, other = setting.services
    routes = Routed(own, other)
    async with served(routes) as host:
        channels = Channels(GatewaySettings(), FixedTargets({"tokenizer.small": host.address}))
        setting.detokenizer = GrpcDetokenizer(channels, lambda model, pause_s: setting.pauses.append((model, pause_s)))
        yield routes
        await setting.detokenizer.close()
        await channels.close()


def of_another_vocabulary(service):
    """From now on its ids mean something else."""
    mine = service._tokenizer
    service._attached = replace(mine, identity=replace(mine.identity, vocabulary_digest="another"))


async def test_text_grows_and_ends(setting):
    """All of it, in order, with the number of ids."""
    sequence, listener = setting.open()
    for letter in "hello there":
        sequence.append(setting.ids(letter))
    sequence.close()
    await listener.over.wait()
    assert listener.text == "hello there"
    assert listener.news[-1].num_tokens == 11


async def test_a_stop_string_ends_a_sequence(setting):
    """Before the match; counted up to the id that completed it; what is added later changes nothing."""
    sequence, listener = setting.open(stop_strings=["lo t"])
    sequence.append(setting.ids("hello there"))
    await listener.over.wait()
    assert (listener.text, listener.news[-1].stop_string, listener.news[-1].num_tokens) == ("hel", "lo t", 7)
    sequence.append(setting.ids("more"))
    sequence.close()
    assert listener.text == "hel"


async def test_an_empty_sequence_closes(setting):
    """Without a single id."""
    sequence, listener = setting.open()
    sequence.close()
    await listener.over.wait()
    assert listener.text == ""


async def test_more_ids_than_the_credit_at_once(setting):
    """They are sent as the service consumes them."""
    sequence, listener = setting.open()
    sequence.append(setting.ids("abcd") * 5000)
    assert sequence.is_behind
    sequence.close()
    await listener.over.wait()
    assert listener.text == "abcd" * 5000


async def test_many_sequences_share_few_streams(setting):
    """300 at once, each its own text, over no more streams than allowed."""
    opened = [setting.open() for _ in range(300)]
    for number, (sequence, _) in enumerate(opened):
        sequence.append(setting.ids(f"number {number}"))
        sequence.close()
    await asyncio.gather(*(listener.over.wait() for _, listener in opened))
    assert [listener.text for _, listener in opened] == [f"number {number}" for number in range(300)]
    assert sum(service.num_streams for service in setting.services) <= MAX_STREAMS


async def test_abandoned_sequences_are_closed_on_the_service(setting):
    """Nothing stays open there, and their listeners hear nothing more."""
    sequence, listener = setting.open()
    sequence.append(setting.ids("ab"))
    await listener.heard.wait()
    sequence.abandon()
    sequence.abandon()
    other, other_listener = setting.open()
    other.append(setting.ids("cd"))
    other.close()
    await other_listener.over.wait()
    assert listener.text == "ab"
    (lane,) = setting.detokenizer._lanes.values()
    assert [list(stream.sequences) for stream in lane.streams] == [[]]


async def test_a_broken_stream_goes_on_on_another_replica(setting):
    """Mid-sequence, also inside a stop string and a split character: no gap, no repeat."""
    sequence, listener = setting.open(stop_strings=["END"])
    sequence.append(setting.ids("one EN"))
    await listener.heard.wait()
    (victim,) = [service for service in setting.services if service.num_streams]
    victim.cut.set()
    sequence.append(setting.ids(" two E"))
    sequence.append(setting.ids("ND three"))
    await listener.over.wait()
    assert listener.text == "one EN two "
    assert listener.news[-1].stop_string == "END"
    assert listener.news[-1].num_tokens == len("one EN two END")


async def test_a_hanging_replica_is_given_up(setting, monkeypatch):
    """It owes answers and says nothing: its sequences go on elsewhere."""
    monkeypatch.setattr(detokenize_stream, "STALL_S", 0.0)
    sequence, listener = setting.open()
    sequence.append(setting.ids("ab"))
    await listener.heard.wait()
    (victim,) = [service for service in setting.services if service.num_streams]
    victim.deaf = True
    sequence.append(setting.ids("cd"))
    sequence.close()
    now = asyncio.get_running_loop().time()
    while victim in setting.services and not listener.over.is_set():
        for later in (1000, 2000):  # the first look sees that it owes something, the second that it still does
            await setting.detokenizer.check(now + later)
        await asyncio.sleep(0)
    assert listener.text == "abcd"


async def test_a_draining_replica_hands_over(setting):
    """New sequences go elsewhere; the running one is finished where it is."""
    first, first_listener = setting.open()
    first.append(setting.ids("ab"))
    await first_listener.heard.wait()
    (draining,) = [service for service in setting.services if service.num_streams]
    draining.drain()
    second, second_listener = setting.open()
    second.append(setting.ids("xy"))
    second.close()
    first.append(setting.ids("cd"))
    first.close()
    await first_listener.over.wait()
    await second_listener.over.wait()
    assert (first_listener.text, second_listener.text) == ("abcd", "xy")


async def test_another_vocabulary_is_refused(setting):
    """That sequence alone fails, with its reason."""
    lane = small_lane(vocabulary_digest="other")
    listener = Listener()
    sequence = setting.detokenizer.open(CallScope("r", "small", lane, "t", 30.0), listener)
    sequence.append([1])
    await listener.over.wait()
    assert listener.error.reason is Reason.VOCABULARY_MISMATCH
    good, good_listener = setting.open()
    good.append(setting.ids("a"))
    good.close()
    await good_listener.over.wait()
    assert good_listener.text == "a"


async def test_nobody_left_fails_the_sequence(setting, monkeypatch):
    """After a bounded wait; the error names who is gone."""
    monkeypatch.setattr(detokenizer, "RESTART_PATIENCE_S", 0.3)
    for service in setting.services:
        service.cut.set()
    sequence, listener = setting.open()
    sequence.append(setting.ids("ab"))
    await listener.over.wait()
    assert listener.error.reason is Reason.UPSTREAM_UNAVAILABLE
    assert "tokenizer.small is gone" in listener.error.message
    assert listener.error.metadata["service"] == "tokenizer"


async def test_a_restart_of_the_tokenizer_is_waited_for(setting):
    """Both replicas are away for more tries than a broken stream gets pauses; the text goes on, the pause is told."""
    sequence, listener = setting.open()
    sequence.append(setting.ids("ab"))
    await listener.heard.wait()
    for service in setting.services:
        service.cut.set()
    sequence.append(setting.ids("cd"))
    for service in setting.services:
        await service.until_streams(3)
    for service in setting.services:
        service.cut.clear()
    sequence.close()
    await listener.over.wait()
    assert (listener.text, listener.error) == ("abcd", None)
    ((model, pause_s),) = setting.pauses
    assert model == "small"
    assert pause_s > 0


async def test_a_lane_that_is_gone_leaves_its_text_to_its_vocabulary(setting, routed):
    """For good, perhaps: whoever has the vocabulary goes on with it, at once."""
    sequence, listener = setting.open()
    sequence.append(setting.ids("ab"))
    await listener.heard.wait()
    routed.is_lane_there = False
    routed.own.cut.set()
    sequence.append(setting.ids("cd"))
    sequence.close()
    await listener.over.wait()
    assert (listener.text, listener.error) == ("abcd", None)
    assert routed.asked == ["own", "nobody", "other"]


async def test_the_only_tokenizer_of_a_vocabulary_is_waited_for(setting, routed):
    """Its lane is gone while it restarts, and all that is there knows other ids: no text comes of that, nor an end."""
    of_another_vocabulary(routed.other)
    opened = [setting.open() for _ in range(2)]
    for sequence, listener in opened:
        sequence.append(setting.ids("ab"))
        await listener.heard.wait()
    routed.is_lane_there = False
    routed.own.cut.set()
    for sequence, _ in opened:
        sequence.append(setting.ids("cd"))
    await routed.until_asked("own", "nobody", "other", "nobody")
    routed.own.cut.clear()
    routed.is_lane_there = True
    for sequence, listener in opened:
        sequence.close()
        await listener.over.wait()
        assert (listener.text, listener.error) == ("abcd", None)
    between = routed.asked[1:-1]
    assert routed.asked == ["own", *["nobody", "other"] * (len(between) // 2), "own"]
    assert [model for model, _ in setting.pauses] == ["small"] * 2


async def test_a_vocabulary_that_stays_away_ends_its_text(setting, routed, monkeypatch):
    """After the bounded wait, and for that reason: not because somebody else's ids mean something else."""
    of_another_vocabulary(routed.other)
    sequence, listener = setting.open()
    sequence.append(setting.ids("ab"))
    await listener.heard.wait()
    routed.is_lane_there = False
    routed.own.cut.set()
    sequence.append(setting.ids("cd"))
    await routed.until_asked("own", "nobody", "other")
    monkeypatch.setattr(detokenizer, "RESTART_PATIENCE_S", 0.0)  # it is over: the next loss is the last
    await listener.over.wait()
    assert (listener.text, listener.error.reason) == ("ab", Reason.UPSTREAM_UNAVAILABLE)
    assert "tokenizer.small is gone" in listener.error.message
    assert "vocabulary" in listener.error.message


async def test_closing_fails_what_is_open(setting):
    """Nobody waits for ever."""
    sequence, listener = setting.open()
    sequence.append(setting.ids("ab"))
    await listener.heard.wait()
    await setting.detokenizer.close()
    assert listener.error is not None


async def test_an_end_goes_with_the_last_ids(setting):
    """A short answer is one message: messages cost more than what is in them."""
    sequence, listener = setting.open()
    sequence.append(setting.ids("hello"))
    sequence.close()
    await listener.over.wait()
    assert listener.text == "hello"
    assert [heard for service in setting.services for heard in service.heard] == [["open", "close"]]
