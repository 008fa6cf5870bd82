"""What of a mapped file is given back: whole pages of a file's tensors, and nothing that only memory holds."""

import re
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from serin_worker.model.mapped_pages import MappedPages
from serin_worker.model.siblings import Layers, replace_siblings

NUMBERS = 1 << 20


def resident_bytes(path: Path) -> int:
    """Of a mapped file."""
    text = Path("/proc/self/smaps").read_text()
    found = re.findall(rf"{re.escape(str(path))}\n(?:\w+:.*\n)*?Rss:\s+(\d+) kB", text)
    return 1024 * sum(map(int, found))


def mapped(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Two tensors of 4 MiB, all of them read, and where they are mapped from; its name says nothing, as a hub's."""
    path = folder / "0a1b"
    save_file({name: torch.arange(NUMBERS).float() + i for i, name in enumerate("ab")}, path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in "ab"}
    for tensor in tensors.values():
        tensor.sum()
    return path, tensors


def test_pages_of_a_file_go_and_come_again(tmp_path):
    """Those of one tensor; what they hold is read anew."""
    path, tensors = mapped(tmp_path)
    before = resident_bytes(path)
    assert before >= 2 * 4 * NUMBERS
    gone = MappedPages().let_go([tensors["a"]])
    assert 4 * NUMBERS - 2 * 4096 <= gone <= 4 * NUMBERS
    assert resident_bytes(path) == before - gone
    assert torch.equal(tensors["a"], torch.arange(NUMBERS).float())


def test_what_only_memory_holds_stays():
    """It would be lost."""
    tensor = torch.arange(NUMBERS).float()
    assert MappedPages().let_go([tensor, tensor[:0], tensor.view(2, -1).T]) == 0
    assert torch.equal(tensor, torch.arange(NUMBERS).float())


class Doubled(Layers):
    """Stands for layers that made something of their weights."""

    def __init__(self, layers: list[torch.nn.Module]) -> None:
        self.weight = layers[0].weight * 2
        self.in_features, self.out_features = 1024, [NUMBERS // 1024]

    def __call__(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """[..., 1024]."""
        return [rows @ self.weight.T]


def test_replaced_layers_leave_no_page_behind(tmp_path):
    """The other tensor keeps the file mapped; an embedding that shares the layer's weight reads it anew."""
    path, tensors = mapped(tmp_path)
    layer = torch.nn.Linear(1024, NUMBERS // 1024, bias=False, device="meta")
    layer.weight = torch.nn.Parameter(tensors.pop("a").view(-1, 1024), requires_grad=False)
    embedding = torch.nn.Embedding.from_pretrained(layer.weight)
    model = torch.nn.ModuleDict({"layer": layer})
    before = resident_bytes(path)
    assert replace_siblings(model, [["layer"]], Doubled) == 1
    assert before - resident_bytes(path) >= 4 * NUMBERS - 2 * 4096
    assert tensors["b"][0] == 1
    assert torch.equal(embedding.weight.flatten(), torch.arange(NUMBERS).float())
