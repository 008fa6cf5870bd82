"""What becomes of a book without any rollout's doing: by time, by configuration, by what is announced. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from serin_control.instance import Instance
from serin_control.lanes import named
from serin_control.plan import ModelPlan
from serin_control.rollouts.act import JUDGE, Act
from serin_control.rollouts.seals import Seal, with_traffic
from serin_control.rollouts.spec import shown_scope
from serin_control.rollouts.standing import Standing, effective
from serin_control.rollouts.steering import steered, still_declared
from serin_control.rollouts.store import Book, Change

Plans = Mapping[str, ModelPlan]
"""What the configuration declares, by model."""


def settled(book: Book, plans: Plans, is_served: Callable[[Standing], bool], now: float) -> Iterator[Change]:
    """Lanes that were kept long enough are retired; shares that somebody declared anew come into force.

    Args:
        book: as it is.
        plans: what is declared.
        is_served: whether what has the traffic takes calls; else what is kept may be all that does, and stays.
        now: seconds since 1970.
    """
    for model, standing in book.standings.items():
        later = standing.expired(now)
        if later != standing and is_served(standing):
            over = [versions for versions in later.retired if versions not in standing.retired]
            why = f"{shown_scope(model)}: {'; '.join(map(named, over))} is kept no longer"
            yield Change((Act(now, "", JUDGE, "expire", why),), standing=later)
            continue
        is_declared_anew = standing.shares is not None and model in plans and not still_declared(standing, plans[model])
        if is_declared_anew and model not in book.rollouts:
            anew = replace(standing, shares=None, declared=effective(plans[model].shares), previous=())
            why = f"{model}: serin.yaml shares its traffic out anew"
            yield Change((Act(now, "", JUDGE, "declare", why),), standing=anew)


def sealed(book: Book, plans: Plans, instances: Sequence[Instance], now: float) -> Iterator[Change]:
    """Versions are held to the files with which they have traffic; who is announced with others is written down."""
    for model, declared in plans.items():
        known, running = book.seals_of(model), book.rollouts.get(model)
        rollout = running if running is not None and running.spec.moves_lanes else None
        judged = (rollout.arms.canary, rollout.arms.baseline) if rollout is not None else ()
        plan = steered(declared, book.standings.get(model), rollout)
        seen = known.looked_at(with_traffic(plan, judged), instances)
        if seen != known:
            acts = (Act(now, "", JUDGE, "refuse", _refused(model, one)) for one in seen.foreigners(known))
            yield Change(tuple(acts), seals=seen)


def _refused(model: str, seal: Seal) -> str:
    """That a version is announced with other files, for the history."""
    return (
        f"{model}: {named((seal.pair,))} is announced with other files ({seal.foreign[:12]}) than it was accepted with "
        f"({seal.artifact[:12]}): what announces them gets no traffic"
    )
