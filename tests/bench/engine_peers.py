"""The engine beside others on the same model and the same rows, in turns, as ratios.

Usage: python tests/bench/engine_peers.py --model DIR --peers DIR [--rounds 3] [--against openvino llamacpp]

The folder of peers has an executable ``run PEER PRECISION`` that prints a JSON line ``{"row": ..., "tok_s": ...}`` for
each row of ``engine.py``, on the model that the folder was made for. Each round runs ours and the peer one after the
other; a row's ratio is the median over rounds. Beside it: both medians, the peak memory of both processes, and what the
machine allows (``roofline.py``, measured before each pair).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import engine
import report
import roofline

ENGINE = Path(engine.__file__)
ITEMSIZE = {"bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Pair:
    """Ours in a precision against a peer in one.

    Attributes:
        least: ratio that every row has to reach; in some rows alone, if ``rows`` says so.
    """

    ours: str
    peer: str
    theirs: str
    least: float
    rows: tuple[str, ...] = engine.ROWS


PAIRS = (
    Pair("bf16", "openvino", "fp16", 1.0),
    Pair("int8", "openvino", "int8", 1.0),
    Pair("bf16", "transformers", "bf16", 2.0),
    Pair("int8", "llamacpp", "q8_0", 1.5, ("prefill_512", "decode_b4", "decode_b16", "decode_b32")),
)


@dataclass
class Side:
    """What one side reached, round by round."""

    rates: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    peak_mib: int = 0

    def run(self, command: list[str]) -> None:
        """One turn in a process of its own."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout:
            lines = process.stdout.readlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
        self.peak_mib = max(self.peak_mib, usage.ru_maxrss // 1024)
        for line in lines:
            if line.startswith("{") and (found := json.loads(line)).get("row"):
                self.rates[found["row"]].append(found["tok_s"])


def compare(pair: Pair, model: Path, peers: Path, rounds: int) -> dict[str, object]:
    """Both sides in turns, shown as a table; what was found."""
    machine, shape = roofline.measured(pair.ours), roofline.shape_of(model)
    ours, theirs = Side(), Side()
    for number in range(1, rounds + 1):
        print(f"{pair.ours} against {pair.peer} {pair.theirs}: round {number} of {rounds}", file=sys.stderr, flush=True)
        ours.run([sys.executable, str(ENGINE), "--model", str(model), "--precision", pair.ours])
        theirs.run([str(peers / "run"), pair.peer, pair.theirs])
    rows, found = [], {}
    for row in (row for row in engine.ROWS if row in theirs.rates):
        ratios = [mine / other for mine, other in zip(ours.rates[row], theirs.rates[row], strict=True)]
        mine, other = (statistics.median(side.rates[row]) for side in (ours, theirs))
        bound = _bound(row, machine, shape, ITEMSIZE[pair.ours])
        ratio, least = statistics.median(ratios), pair.least if row in pair.rows else 0.0
        rows.append((row, mine, other, f"{ratio:.2f}", _verdict(ratio, least), f"{mine / bound:.0%}" if bound else ""))
        found[row] = {"ours": mine, "theirs": other, "ratio": ratio, "ratios": ratios, "roofline": bound}
    report.show(
        f"{pair.ours} against {pair.peer} {pair.theirs}, tokens a second, {rounds} rounds in turns",
        ("row", "ours", pair.peer, "ratio", "goal", "of the roofline"),
        rows,
        (
            f"peak memory: ours {ours.peak_mib:,} MiB, {pair.peer} {theirs.peak_mib:,} MiB"
            f" ({ours.peak_mib / theirs.peak_mib:.2f} times; goal 1.3)",
            f"machine: {machine.bytes_s / 1e9:.1f} GB/s read, {machine.macs_s / 1e12:.2f} T multiply-additions/s",
        ),
    )
    return {"rows": found, "peak_mib": {"ours": ours.peak_mib, "theirs": theirs.peak_mib}}


def _bound(row: str, machine: roofline.Machine, shape: roofline.Shape, itemsize: int) -> float | None:
    if row == "prefill_512":
        return roofline.prefill(machine, shape, engine.PREFILL, itemsize)
    if row == "decode_b1":
        return roofline.decode(machine, shape, 1, engine.PREFILL, itemsize)
    if row.startswith("decode_b"):
        return roofline.decode(machine, shape, int(row.removeprefix("decode_b")), engine.BATCH_CONTEXT, itemsize)
    return None


def _verdict(ratio: float, least: float) -> str:
    return "" if not least else f"{least} met" if ratio >= least else f"{least} MISSED"


def main() -> None:
    """Compare with each peer that is asked for, and keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model folder, the same that peers were made for")
    parser.add_argument("--peers", type=Path, required=True, help="folder with an executable `run PEER PRECISION`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", nargs="*", choices=sorted({pair.peer for pair in PAIRS}), default=["openvino"])
    parser.add_argument("--precision", nargs="*", choices=sorted(ITEMSIZE), default=sorted(ITEMSIZE))
    parser.add_argument("--keep", type=Path, default=Path("build/bench/engine.json"))
    given = parser.parse_args()
    if not os.access(given.peers / "run", os.X_OK):
        parser.error(f"--peers: {given.peers / 'run'} is no executable")
    chosen = [pair for pair in PAIRS if pair.peer in given.against and pair.ours in given.precision]
    report.keep(
        given.keep,
        {
            f"{pair.ours} {pair.peer} {pair.theirs}": compare(pair, given.model, given.peers, given.rounds)
            for pair in chosen
        },
    )


if __name__ == "__main__":
    main()
