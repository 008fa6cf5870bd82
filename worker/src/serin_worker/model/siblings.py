"""Which linear layers of a model are given the same rows, so that one pass over the rows can serve all of them.

Query, key and value projections are such siblings, and the gate and up projections of a feed-forward part. Found by
looking at a run, not by names. Knows nothing about how layers compute.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch

from serin_worker.model.mapped_pages import MappedPages

Siblings = list[str]
"""Names of layers that come one after the other and are given the same tensor."""


def find_siblings(
    model: torch.nn.Module, run: Callable[[], object], kind: type[torch.nn.Module] = torch.nn.Linear
) -> list[Siblings]:
    """Every plain linear layer of a model in groups of siblings, in the order in which ``run()`` calls them.

    Layers that the run does not call stand alone, last. ``kind``: the class of the layers that are looked at.
    """
    names = {module: name for name, module in model.named_modules() if type(module) is kind}
    calls: list[tuple[torch.nn.Module, torch.Tensor]] = []

    def note(called: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        calls.append((called, given[0] if given else torch.empty(0)))  # rows given by keyword are nobody else's

    hooks = [module.register_forward_pre_hook(note) for module in names]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    groups = [[names[module] for module in group] for group in _runs_of_same(calls)]
    called = {name for group in groups for name in group}
    return groups + [[name] for name in names.values() if name not in called]


def _runs_of_same(calls: list[tuple[torch.nn.Module, torch.Tensor]]) -> Iterator[list[torch.nn.Module]]:
    """Consecutive calls with one tensor; a layer that is called twice is in the first group alone."""
    group: list[torch.nn.Module] = []
    rows: torch.Tensor | None = None
    seen: set[torch.nn.Module] = set()
    for module, given in calls:
        if given is not rows and group:
            yield group
            group = []
        rows = given
        if module not in seen:
            seen.add(module)
            group.append(module)
    if group:
        yield group


class Member(torch.nn.Module):
    """Stands where one of several siblings stood, the ``index``-th; the first that is asked computes for all.

    A member that is given other rows than the first was computes anew, so that a wrong guess costs time only.
    """

    def __init__(self, group: "Group", index: int) -> None:
        super().__init__()
        self.group = group
        self.index = index
        self.in_features, self.out_features = group.in_features, group.out_features[index]

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        return self.group.output(self.index, rows)


class Group:
    """Siblings that are computed together.

    Args:
        compute: rows [..., in] to one tensor [..., out] for each sibling.
        in_features: width of a row.
        out_features: width of each output.

    Attributes:
        is_copied: outputs are copied where they are views of one tensor.
    """

    def __init__(
        self, compute: Callable[[torch.Tensor], list[torch.Tensor]], in_features: int, out_features: list[int]
    ) -> None:
        self.in_features = in_features
        self.out_features = out_features
        self.compute = compute
        self.is_copied = False
        self._rows: torch.Tensor | None = None
        self._outputs: list[torch.Tensor | None] = []

    def output(self, index: int, rows: torch.Tensor) -> torch.Tensor:
        """What sibling ``index`` makes of the rows."""
        if rows is not self._rows or self._outputs[index] is None:
            self._rows, self._outputs = rows, list(self.compute(rows))
        output = self._outputs[index]
        assert output is not None
        self._outputs[index] = None
        if all(one is None for one in self._outputs):
            self._rows = None  # nothing of a step stays in memory
        return output.contiguous() if self.is_copied else output


def members(group: Group) -> list[torch.nn.Module]:
    """A module for each sibling."""
    return [Member(group, index) for index in range(len(group.out_features))]


class Layers(Protocol):
    """One or more layers as one."""

    in_features: int
    out_features: list[int]

    def __call__(self, rows: torch.Tensor, /) -> list[torch.Tensor]:
        """[..., in] to [..., out] for each layer."""
        ...


def replace_siblings(
    model: torch.nn.Module,
    groups: list[Siblings],
    make: Callable[[list[torch.nn.Module]], Layers],
    progress: Callable[[float], None] | None = None,
) -> int:
    """Replace layers of a model by what is made of each group; returns how many.

    A layer's own weight is dropped, unless something else holds it too (a tied embedding), and with it what of a mapped
    file it had in memory.

    Args:
        model: its layers are replaced in place.
        groups: layers by name, siblings together.
        make: makes one of some layers; of a module, the first of them becomes the parent.
        progress: called with the fraction of groups done.
    """
    mapped = MappedPages()
    for number, names in enumerate(groups, start=1):
        layers = [model.get_submodule(name) for name in names]
        made = make(layers)
        places = members(Group(made, made.in_features, made.out_features))
        if isinstance(made, torch.nn.Module):
            places[0].layers = made  # so that whoever walks over the model finds it
        for name, member in zip(names, places, strict=True):
            model.set_submodule(name, member)
        mapped.let_go(parameter for layer in layers for parameter in layer.parameters())
        if progress:
            progress(number / len(groups))
    return sum(len(names) for names in groups)


def copy_if_needed(model: torch.nn.Module, run: Callable[[], object]) -> None:
    """Have siblings' outputs copied if ``run()`` of a model takes no views of one tensor, as a few reshape them."""
    try:
        run()
    except RuntimeError:
        for module in model.modules():
            if isinstance(module, Member):
                module.group.is_copied = True
        run()
