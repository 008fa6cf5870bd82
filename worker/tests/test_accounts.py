"""What was sent for attempts: counted, remembered for a while, bounded."""

from serin_worker import accounts as module
from serin_worker.accounts import KEPT_S, Accounts
from serin_worker.outputs import Delta, Started


def test_what_is_sent_is_counted_by_choice():
    """Prior output included; the prompt as it was the first time; an attempt that comes back goes on."""
    accounts = Accounts()
    with accounts.running("a" * 16 + ".0") as account:
        account.note(Started(7, 3))
        account.note(Delta(0, 0, [1, 2]))
        account.note(Delta(1, 0, [1]))
        assert accounts.begun_with("a" * 16) == [account]
        assert account.num_running == 1
    with accounts.running("a" * 16 + ".0") as again:
        again.note(Started(7, 7))
        again.note(Delta(0, 2, [3]))
    assert again is account
    assert (account.num_prompt_tokens, account.num_cached_tokens, account.num_tokens) == (7, 3, {0: 3, 1: 1})
    assert account.num_running == 0
    assert accounts.begun_with("b") == []


def test_old_accounts_are_forgotten(monkeypatch):
    """By age, and the oldest first where there are too many; one that runs stays."""
    now = 0.0
    accounts = Accounts(clock=lambda: now)
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    with accounts.running("long"):
        for number in range(6):
            with accounts.running(f"short{number}"):
                pass
        assert {one.name for one in accounts.begun_with("")} == {"long", "short4", "short5"}
    now = KEPT_S + 1
    with accounts.running("new"):
        pass
    with accounts.running("newer"):
        pass
    assert {one.name for one in accounts.begun_with("")} == {"new", "newer"}


def test_what_has_no_name_is_not_kept():
    """Callers that settle nothing name nothing."""
    accounts = Accounts()
    with accounts.running("") as account:
        account.note(Delta(0, 0, [1]))
    assert accounts.begun_with("") == []
