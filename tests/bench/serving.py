"""What the engine promises under load, each beside its goal: `make bench-serving`.

    python tests/bench/serving.py [--model DIR] [--only PART ...] [--out FILE]

| part | what |
|---|---|
| waits | running decodes under an arriving prompt, a tenant beside another's queue, a prompt with a known prefix |
| numerics | what `numerics: invariant` costs, in bf16, int8 and fp32 |
| context | one long prompt: time for each chunk beside operations, memory |
| start | from exec to ready beside a plain read of the weights |
| streams | tokens/s that one worker process sends at most |

Engines run on one thread and are timed by their CPU seconds, so that other work on the machine matters little;
`--threads` changes both. What clients receive through the mesh is `make bench-mesh`.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import make_model
from report import keep
from serving_context import measure_context
from serving_numerics import PRECISIONS, measure_numerics
from serving_scale import TINY, Scale
from serving_start import measure_start
from serving_streams import measure_streams
from serving_waits import measure_waits

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_MODEL = ROOT / "build" / "bench" / "model"
DEFAULT_OUT = ROOT / "build" / "bench" / "serving.json"
PARTS = ("waits", "numerics", "context", "start", "streams")


def main(argv: list[str] | None = None) -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="bench model; made if it is not there")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, help="some of the parts")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the JSON goes")
    parser.add_argument("--threads", type=int, default=1, help="threads of kernels; more than one: seconds of the wall")
    parser.add_argument("--rounds", type=int, help="rounds of each figure")
    parser.add_argument("--context", type=int, help="tokens of the long prompt (default: 32,768)")
    parser.add_argument("--precision", nargs="*", choices=PRECISIONS, default=PRECISIONS, help="of the part numerics")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a model of some hundred positions")
    given = parser.parse_args(argv)
    if not (given.model / "config.json").exists():
        make_model.main([str(given.model)])
    scale = replace(TINY if given.tiny else Scale(), num_threads=given.threads)
    scale = replace(scale, rounds=given.rounds or scale.rounds, context=given.context or scale.context)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "waits": lambda: measure_waits(given.model, scale),
        "numerics": lambda: measure_numerics(given.model, scale, tuple(given.precision)),
        "context": lambda: measure_context(given.model, scale),
        "start": lambda: measure_start(given.model, scale),
        "streams": lambda: measure_streams(scale),
    }
    keep(given.out, {part: parts[part]() for part in given.only})
    return 0


if __name__ == "__main__":
    sys.exit(main())
