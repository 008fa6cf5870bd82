"""Serin's control plane: which instances exist, which versions form lanes, and how traffic finds them."""
