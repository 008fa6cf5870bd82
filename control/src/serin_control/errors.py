"""What the control plane refuses, and why.

    ControlError
      RegistrationInvalid   an announcement that cannot be true
      VersionMismatch       a version announced with other digests than its siblings
      LeaseSuperseded       the instance announced again on another stream
      ConfigConflict        somebody else changed the configuration first
      StoreDown             the state store does not answer
      StoreUnsafe           the state store would lose what it is given

A refused configuration is `serin_control.config.ConfigInvalid`.
"""


class ControlError(Exception):
    """Anything the control plane refuses; the message is for a person."""


class RegistrationInvalid(ControlError):
    """An announcement that cannot be true or is incomplete."""


class VersionMismatch(ControlError):
    """A version was announced with other digests than its siblings."""


class LeaseSuperseded(ControlError):
    """The instance announced again on another stream; this one has nothing to say any more."""


class ConfigConflict(ControlError):
    """The configuration in force is not the one that was to be replaced."""


class StoreDown(ControlError):
    """The state store does not answer."""


class StoreUnsafe(ControlError):
    """The state store would lose what it is given."""
