"""Callers' JSON schemas: what of them can be enforced to the letter, and where the rest was written."""
