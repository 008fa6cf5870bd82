"""What is kept of refusals: why, and none of their callers' words."""

import pytest
from serin_gateway.receipt import Receipt
from serin_gateway.unquoted import unquoted
from serin_mesh.errors import MeshError, Reason


@pytest.mark.parametrize(
    ("reason", "sentence", "kept"),
    [
        (Reason.PARAMETER_INVALID, "role: 'my secret' is not accepted; accepted: user", "role: '…' is not accepted; "),
        (Reason.PARAMETER_INVALID, f"role: {'s' * 99!r:.20} is not accepted", "role: '…'"),
        (Reason.PARAMETER_INVALID, 'role: "it\'s my secret" is not accepted', "role: '…' is"),
        (Reason.PARAMETER_INVALID, "role: 'it\\'s my secret' is not accepted", "role: '…' is"),
        (Reason.MODEL_NOT_FOUND, "model 'my secret' does not exist", "model '…' does not exist"),
        (Reason.PARAMETER_UNKNOWN, "my secret: this parameter is not known here", "a parameter is not known here"),
        (Reason.GRAMMAR_INVALID, "guided_regex: (my secret", "guided_regex was refused"),
        (Reason.RATE_LIMITED, "the key's limit of 1 requests is reached", "the key's limit of 1 requests is reached"),
        (Reason.PROMPT_TOO_LONG, "the prompt has 3007 tokens; the context is 1024", "the prompt has 3007 tokens"),
    ],
)
def test_no_word_of_the_caller_is_kept(reason: Reason, sentence: str, kept: str):
    """Numbers, names of parameters and what is accepted stay; so it is in a receipt."""
    error = MeshError(reason, sentence, parameter="guided_regex")
    assert unquoted(error).startswith(kept)
    assert "secret" not in unquoted(error)
    assert "sss" not in unquoted(error)
    receipt = Receipt("r", "rest")
    receipt.ended_by(error)
    assert receipt.message == unquoted(error)
