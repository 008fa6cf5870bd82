"""What the command tells a person when something cannot be done: one line and an exit code.

    CliError
    ├── UsageProblem      2   a flag, a setting or a file is wrong: key, value, what is accepted
    ├── StartRefused      1   a mesh cannot start here: what failed, what to do; 2 where a setting is to blame
    │   └── ModelRefused      a path or hub id names no model
    ├── NoMesh            1   the command needs a running mesh and there is none
    └── NoControlPlane    1   none of the control planes that are meant answers

Knows nothing about how the line is printed.
"""


class CliError(Exception):
    """A line that says what failed and what to do."""

    exit_code = 1


class UsageProblem(CliError):
    """A flag, a setting or a file that cannot be accepted."""

    exit_code = 2

    @classmethod
    def setting(cls, key: str, value: object, accepted: str) -> "UsageProblem":
        """Name the key, the value it was given (None: it was given none) and what it accepts."""
        return cls(f"{key}: {'not set' if value is None else repr(value)}: accepted: {accepted}")


class StartRefused(CliError):
    """A mesh cannot start, or did not come up; ``blames_setting``: for what it was told."""

    def __init__(self, message: str, *, blames_setting: bool = False) -> None:
        super().__init__(message)
        if blames_setting:
            self.exit_code = UsageProblem.exit_code


class ModelRefused(StartRefused):
    """A path or hub id names nothing that can be served; ``wrong`` says why and what would do."""

    def __init__(self, path: str, wrong: str) -> None:
        super().__init__(f"model {path!r}: {wrong}")
        self.wrong = wrong


class NoMesh(CliError):
    """No mesh runs on the state directory."""


class NoControlPlane(CliError):
    """None of the control planes that are meant answers."""
