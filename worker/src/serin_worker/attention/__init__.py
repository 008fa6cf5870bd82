"""Attention over a paged KV cache, as a function that transformers' models call, with two implementations."""
