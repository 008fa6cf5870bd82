"""Who waits for whom in an engine: decodes for a prompt, a tenant for the queue of another, a prompt for its prefix."""

import statistics
from pathlib import Path
from typing import Any

import torch
from serving_engine import DrivenEngine
from serving_promise import at_least, at_most, kept, show_promises
from serving_scale import Scale

STALL_GOAL, FAIRNESS_GOAL, PREFIX_GOAL = 2.0, 1.5, 5.0
NUM_DECODES = 8
NUM_QUEUED = 100
MANY_PROMPT, MANY_OUTPUT = 64, 24
SUFFIX = 16


@torch.inference_mode()
def measure_waits(model: Path, scale: Scale) -> dict[str, Any]:
    """All three, on one engine in bf16."""
    driven = DrivenEngine(
        model, "bf16", scale.num_threads, context_length=scale.long_prompt + 2 * scale.prompt, kv_bytes=scale.kv_bytes,
        max_num_sequences=scale.num_slots,
    )  # fmt: skip
    driven.add(driven.prompt(scale.prompt), 4)
    driven.drain()
    return {
        "stall": _stall(driven, scale),
        "fairness": _fairness(driven, scale),
        "prefix": _prefix(driven, scale),
    }


def _stall(driven: DrivenEngine, scale: Scale) -> dict[str, Any]:
    """The gaps of running decodes while a long prompt arrives, over the median of those before."""
    rounds = []
    for _ in range(scale.rounds):
        names = [driven.add(driven.prompt(scale.prompt // 4), scale.long_prompt) for _ in range(NUM_DECODES)]
        driven.begin(names)
        before = [driven.step()[0] for _ in range(scale.num_gaps)]
        prompt = driven.add(driven.prompt(scale.long_prompt), 1)
        gaps, waited, is_over = [], 0.0, False
        while not is_over:
            seconds, made = driven.step()
            waited += seconds
            is_over = prompt in made
            if made & set(names):
                gaps.append(waited)
                waited = 0.0
        driven.abort(names)
        middle = statistics.median(before)
        rounds.append(
            {
                "median_s": middle, "alone_p99": _p99(before) / middle, "p50": statistics.median(gaps) / middle,
                "p99": _p99(gaps) / middle, "worst": max(gaps) / middle, "first_token_s": sum(gaps),
            }
        )  # fmt: skip
    found = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    promise = at_most("gap between tokens, p99 under the prompt over the median without", found["p99"], STALL_GOAL)
    show_promises(
        f"{NUM_DECODES} running decodes, a prompt of {scale.long_prompt} tokens arrives",
        [promise],
        (
            f"median without {1000 * found['median_s']:.1f} ms, p99 without {found['alone_p99']:.2f} times that",
            f"under the prompt p50 {found['p50']:.2f}, worst {found['worst']:.2f};"
            f" its first token after {found['first_token_s']:.1f} s",
            f"each round's p99: {' '.join(format(one['p99'], '.2f') for one in rounds)}",
        ),
    )
    return kept([promise], rounds=rounds)


def _fairness(driven: DrivenEngine, scale: Scale) -> dict[str, Any]:
    """One tenant's first token at moments of another's queue, over those alone, in turns."""
    waits: dict[str, list[float]] = {"alone": [], "queue": []}
    for number in range(scale.num_arrivals):
        prompt = driven.prompt(scale.prompt)
        waits["alone"].append(driven.first_token_s(driven.add(prompt, 1, "few")))
        driven.drain()
        many = [driven.add(driven.prompt(MANY_PROMPT), MANY_OUTPUT, "many") for _ in range(NUM_QUEUED)]
        for _ in range(
            1 + 3 * number
        ):  # while its queue is taken in, once its slots are full, while slots change hands
            driven.step()
        seconds, _ = driven.step()  # arrivals come during a step: half of it is waited for, on average
        waits["queue"].append(seconds / 2 + driven.first_token_s(driven.add(driven.prompt(scale.prompt), 1, "few")))
        driven.abort(many)
    ratios = [late / alone for late, alone in zip(waits["queue"], waits["alone"], strict=True)]
    promise = at_most(
        "time to the second tenant's first token, over that alone (median)", statistics.median(ratios), FAIRNESS_GOAL
    )
    show_promises(
        f"one tenant has {NUM_QUEUED} requests queued, {scale.num_slots} slots; another sends {scale.prompt} tokens",
        [promise],
        (f"each arrival: {' '.join(format(one, '.2f') for one in ratios)}",),
    )
    return kept([promise], ratios=ratios, seconds=waits)


def _prefix(driven: DrivenEngine, scale: Scale) -> dict[str, Any]:
    """A second request with the same prefix; how much of it was found, by the request and by the engine's count."""
    block_size, scheduler = driven.about.block_size, driven.engine.scheduler
    ratios, is_exact = [], True
    for _ in range(scale.rounds):
        shared = driven.prompt(scale.prefix)
        first = driven.first_token_s(driven.add(shared + driven.prompt(SUFFIX), 1, shares=True))
        hits = scheduler.num_prefix_hits
        name = driven.add(shared + driven.prompt(SUFFIX), 1, shares=True)
        ratios.append(first / driven.first_token_s(name))
        expected = scale.prefix // block_size * block_size
        is_exact &= driven.num_cached[name] == expected == scheduler.num_prefix_hits - hits
    promises = [
        at_least("how much sooner the second one starts", statistics.median(ratios), PREFIX_GOAL),
        at_least("hits exact to the block (1: yes)", float(is_exact), 1.0),
    ]
    show_promises(
        f"two requests share {scale.prefix} tokens, {SUFFIX} of their own",
        promises,
        (f"each round: {' '.join(format(one, '.1f') for one in ratios)}",),
    )
    return kept(promises, ratios=ratios)


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]
