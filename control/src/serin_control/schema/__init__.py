"""The committed JSON Schema of `serin.yaml`; ``python -m serin_control.schema`` prints the current one."""
