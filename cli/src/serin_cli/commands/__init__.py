"""One module for each command: DESCRIPTION, `configure(parser)`, `run(arguments) -> exit code`."""
