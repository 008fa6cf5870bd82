"""The `serin` command: a mesh on this machine, its keys, its configuration, a chat with it."""
