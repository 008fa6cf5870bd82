"""What the control plane refuses, and why.

    ControlError
      RegistrationInvalid   an announcement that cannot be true
      VersionMismatch       a version announced with other digests than its siblings
      LeaseSuperseded       the instance announced again on another stream
      ConfigConflict        somebody else changed the configuration first
      StoreDown             the state store does not answer
      StoreUnsafe           the state store would lose what it is given
      RolloutInvalid        a rollout that cannot be meant
      RolloutConflict       another rollout of the model runs, or somebody else changed it first
      RolloutsFrozen        rollouts may not start or move on
      RolloutNotFound       no rollout of that name
      JudgeUnreadable       what was kept of a rollout's judge has another shape
      VersionGone           nothing of the version to go back to runs any more
      NotLeading            another control plane leads, or none does

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


class RolloutInvalid(ControlError):
    """A rollout that cannot be meant: the message names key, value and what is accepted."""


class RolloutConflict(ControlError):
    """Another rollout of the model runs, or somebody else changed it first."""


class RolloutsFrozen(ControlError):
    """Rollouts may not start or move on."""


class RolloutNotFound(ControlError):
    """There is no rollout of that name."""


class JudgeUnreadable(ControlError):
    """What was kept of a rollout's judge has another shape; never leaves the room."""


class VersionGone(ControlError):
    """Nothing of the version to go back to runs any more; the message says what brings it back."""


class NotLeading(ControlError):
    """Another control plane leads.

    Attributes:
        leader: ``host:port`` of the one that does; empty: not known, or none does.
    """

    def __init__(self, message: str, leader: str = "") -> None:
        super().__init__(message)
        self.leader = leader
