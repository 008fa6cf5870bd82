"""What is said of an answer that cannot be scored. Knows nothing about scoring."""


class NotScored(Exception):
    """An answer could not be scored, for a reason that says nothing about it; the message names the reason."""
