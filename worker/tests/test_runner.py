"""Steps have few sizes: kernels that are built for each of them look like a leak."""

import pytest
from serin_worker.runner import ModelRunner


@pytest.mark.parametrize("row_multiple", [1, 2, 16])
def test_steps_have_few_sizes(row_multiple: int):
    """No more than eight for each doubling; multiples of what keeps bits; less than an eighth of rows is padding."""
    runner = ModelRunner(None, row_multiple)  # the model is not asked
    sizes = {num_rows: runner._pad(num_rows) for num_rows in range(1, 513)}
    assert len(set(sizes.values())) <= 16 + 5 * 8
    for num_rows, size in sizes.items():
        assert size % row_multiple == 0
        assert num_rows <= size < num_rows + max(row_multiple, num_rows / 8)
