"""What the mesh costs on top of an engine: `make bench-mesh`.

    python tests/bench/mesh.py [--model DIR] [--only twin|engine] [--out FILE]

Two meshes of real processes are asked in turn. Behind the first is an engine twin that offers more tokens than a
machine can carry: what arrives at REST and gRPC clients, what limits it, what each process costs. Behind the second
is the real worker on the bench model: what its clients receive against what the same worker gives when asked directly.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import make_model
from mesh_engine import measure_engine
from mesh_twin import measure_twin
from report import keep

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_MODEL = ROOT / "build" / "bench" / "model"
DEFAULT_OUT = ROOT / "build" / "bench" / "mesh.json"


def main(argv: list[str] | None = None) -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description="Measure what the mesh costs on top of an engine.")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="bench model; made if it is not there")
    parser.add_argument("--only", choices=["twin", "engine"], help="one of the two measurements")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the JSON goes")
    parser.add_argument("--tokens-per-s", type=float, default=30_000, help="what the twin offers (default: 30,000)")
    parser.add_argument("--twin-streams", type=int, default=256, help="streams at once from the twin (default: 256)")
    parser.add_argument("--twin-tokens", type=int, default=1_000, help="tokens of each of them (default: 1,000)")
    parser.add_argument("--streams", type=int, default=16, help="streams at once from the engine (default: 16)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of engine, then mesh (default: 5)")
    arguments = parser.parse_args(argv)
    if not (arguments.model / "config.json").exists():
        make_model.main([str(arguments.model)])
    results = {}
    with tempfile.TemporaryDirectory(prefix="serin-bench-") as folder:
        if arguments.only != "engine":
            results["twin"] = asyncio.run(measure_twin(arguments, Path(folder)))
        if arguments.only != "twin":
            results["engine"] = asyncio.run(measure_engine(arguments, Path(folder)))
    keep(arguments.out, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
