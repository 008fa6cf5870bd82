"""How fast text is decoded, in process and over gRPC: ``python tokenizer-svc/tests/measure_detokenize.py``.

The figures of the decision record 0002 come from here. No test: nothing is asserted.
"""

import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import tokenizer_folders as folders
from serin.tokenizer.v1 import tokenizer_pb2 as pb
from serin.tokenizer.v1 import tokenizer_pb2_grpc
from serin_mesh.channels import connect
from serin_mesh.identity import vocabulary_digest
from serin_mesh.settings import ServiceSettings
from serin_tokenizer_svc.folder import read_folder
from serin_tokenizer_svc.sequence import GrowingSequence
from serin_tokenizer_svc.stop_strings import StopFinder
from serin_tokenizer_svc.vocabulary import Vocabulary

STOPS = ["\n\nQ:", "###", "</end>"]
TOKENS = 200
NUM_STREAMS = 4
SECONDS = 5.0


def framed(**frame):
    """One frame as a message."""
    return pb.DetokenizeRequest(frames=[pb.SequenceFrame(**frame)])


def cpu_s(pid):
    """Processor seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def in_process(vocabulary, num_sequences, stops):
    """One id at a time, sequence by sequence."""
    draw = random.Random(0)
    sequences = [
        GrowingSequence(vocabulary.stream(False), StopFinder(stops) if stops else None) for _ in range(num_sequences)
    ]
    ids = [[draw.randrange(vocabulary.size)] for _ in range(TOKENS)]
    began = time.process_time()
    for token in ids:
        for sequence in sequences:
            sequence.append(token)
    rate = num_sequences * TOKENS / (time.process_time() - began)
    print(f"in process, {num_sequences} sequences, {len(stops)} stop strings: {rate:,.0f} ids/s")


async def every_id(stub, pid, digest, num_sequences, per_message):
    """As many messages as go through, each with so many ids of one sequence."""

    async def one_stream(names):
        call = stub.Detokenize()

        async def write():
            for name in names:
                await call.write(framed(sequence_id=name, open=pb.OpenSequence(vocabulary_digest=digest)))
            append = pb.AppendTokens(token_ids=[65] * per_message)
            for _ in range(TOKENS // per_message):
                for name in names:
                    await call.write(framed(sequence_id=name, append=append))
            for name in names:
                await call.write(framed(sequence_id=name, close=pb.CloseSequence()))
            await call.done_writing()

        writing = asyncio.create_task(write())
        async for _ in call:
            pass
        await writing

    names = [str(number) for number in range(num_sequences)]
    began, mine, theirs = time.perf_counter(), time.process_time(), cpu_s(pid)
    await asyncio.gather(*(one_stream(names[at::NUM_STREAMS]) for at in range(NUM_STREAMS)))
    num_ids = num_sequences * TOKENS
    print(
        f"gRPC, {num_sequences} sequences, {per_message} ids a message:"
        f" {num_ids / (time.perf_counter() - began):,.0f} ids/s,"
        f" caller {(time.process_time() - mine) / num_ids * 1e6:.0f} µs an id,"
        f" service {(cpu_s(pid) - theirs) / num_ids * 1e6:.0f} µs"
    )


class Paced:
    """Sequences that grow at a fixed rate; ids that wait for a watermark travel together."""

    def __init__(self, stub, digest, num_sequences):
        self.calls = [stub.Detokenize() for _ in range(NUM_STREAMS)]
        self.ready = [asyncio.Queue() for _ in range(NUM_STREAMS)]
        self.digest = digest
        self.made, self.sent, self.seen = ([0] * num_sequences for _ in range(3))
        self.born = [[] for _ in range(num_sequences)]
        self.queued = [False] * num_sequences
        self.delays = []

    def wake(self, number):
        """A sequence has ids to send."""
        if not self.queued[number]:
            self.queued[number] = True
            self.ready[number % NUM_STREAMS].put_nowait(number)

    async def write(self, stream):
        """Send what waits."""
        while True:
            frames = list(filter(None, [self.frame(await self.ready[stream].get())]))
            while not self.ready[stream].empty():
                frames += filter(None, [self.frame(self.ready[stream].get_nowait())])
            if frames:
                await self.calls[stream].write(pb.DetokenizeRequest(frames=frames))

    def frame(self, number):
        """What waits of a sequence."""
        self.queued[number] = False
        num_new = self.made[number] - self.sent[number]
        if not num_new or self.sent[number] != self.seen[number]:
            return None
        self.sent[number] += num_new
        return pb.SequenceFrame(sequence_id=str(number), append=pb.AppendTokens(token_ids=[65] * num_new))

    async def read(self, stream):
        """Hear what was decoded."""
        while True:
            response = await self.calls[stream].read()
            for news in response.news:
                number, now = int(news.sequence_id), time.perf_counter()
                self.delays += [now - born for born in self.born[number][self.seen[number] : news.watermark]]
                self.seen[number] = max(self.seen[number], news.watermark)
                if self.made[number] > self.sent[number]:
                    self.wake(number)

    async def run(self, rate):
        """Grow for a while; returns the seconds."""
        for number in range(len(self.made)):
            opening = pb.OpenSequence(vocabulary_digest=self.digest, stop_strings=STOPS)
            await self.calls[number % NUM_STREAMS].write(framed(sequence_id=str(number), open=opening))
        tasks = [asyncio.create_task(side(at)) for at in range(NUM_STREAMS) for side in (self.write, self.read)]
        began = time.perf_counter()
        while (now := time.perf_counter()) - began < SECONDS:
            due = int((now - began) * rate / len(self.made))
            for number, made in enumerate(self.made):
                if due > made:
                    self.born[number] += [now] * (due - made)
                    self.made[number] = due
                    self.wake(number)
            await asyncio.sleep(0.008)
        for task in tasks:
            task.cancel()
        for call in self.calls:
            call.cancel()
        return time.perf_counter() - began


async def paced(stub, pid, digest, num_sequences, rate):
    """A fixed rate, and what arrives of it."""
    load = Paced(stub, digest, num_sequences)
    mine, theirs = time.process_time(), cpu_s(pid)
    took_s = await load.run(rate)
    delays = sorted(load.delays)
    print(
        f"gRPC, {rate:,} ids/s offered over {num_sequences} sequences: {sum(load.seen) / took_s:,.0f} ids/s,"
        f" delay p50 {delays[len(delays) // 2] * 1e3:.0f} ms, p99 {delays[len(delays) * 99 // 100] * 1e3:.0f} ms,"
        f" cores: caller {(time.process_time() - mine) / took_s:.2f}, service {(cpu_s(pid) - theirs) / took_s:.2f}"
    )


async def main():
    """Measure everything."""
    with tempfile.TemporaryDirectory() as root:
        folder = folders.make("byte_level", Path(root))
        vocabulary = Vocabulary(read_folder(folder))
        for num_sequences in (64, 256):
            for stops in ([], STOPS):
                in_process(vocabulary, num_sequences, stops)
        command = [sys.executable, "-m", "serin_tokenizer_svc", "--model", "m", "--model-path", str(folder)]
        service = await asyncio.create_subprocess_exec(*command, "--log-format", "json", stderr=asyncio.subprocess.PIPE)
        try:
            address = ""
            while (entry := json.loads(await service.stderr.readline()))["event"] != "service.ready":
                address = entry.get("address", address)
            async with connect(address, ServiceSettings()) as channel:
                stub, digest = tokenizer_pb2_grpc.TokenizerServiceStub(channel), vocabulary_digest(folder)
                for num_sequences in (64, 256):
                    for per_message in (1, 4, 16):
                        await every_id(stub, service.pid, digest, num_sequences, per_message)
                for num_sequences, rate in ((64, 2_000), (256, 10_000), (256, 30_000)):
                    await paced(stub, service.pid, digest, num_sequences, rate)
        finally:
            service.terminate()
            await service.communicate()


if __name__ == "__main__":
    asyncio.run(main())
