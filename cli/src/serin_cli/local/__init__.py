"""A whole mesh as processes of this machine."""
