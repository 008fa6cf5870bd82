"""What happens when more is asked than the workers can bear: requests wait in fair lines, or are refused early.

A `WaitingLine` orders those who wait; a `Turnstile` lets as many through as its `ConcurrencyLimit` says; `Turnstiles`
has one for each model, and adapts them to what workers report.
"""

from serin_gateway.overload.turnstiles import Pass, Turnstiles, WorkersLoad

__all__ = ["Pass", "Turnstiles", "WorkersLoad"]
