"""What two versions of a cache can read of each other: whether the new one begins with what the old one kept.

Pure: what is announced in, a sentence out. Versions that do not read each other's format keep it under keys of their
own by themselves; nothing here has to arrange that.
"""

from collections.abc import Iterable

from serin_control.instance import Formats, Instance
from serin_control.rollouts.spec import Spec


def foreign_formats(spec: Spec, before: str, instances: Iterable[Instance]) -> str:
    """Why a new version shares less than everything with the one before, for people; empty: it shares all."""
    announced = {
        one.registration.version: one.registration.formats
        for one in instances
        if one.registration.service is spec.service and one.registration.formats.written
    }
    old, new = announced.get(before, Formats()), announced.get(spec.to_version, Formats())
    if not old.written or not new.written:
        return ""
    said = []
    if new.written not in old.read:
        said.append(
            f"{before} does not read format {new.written}, which {spec.to_version} writes under keys of its own"
        )
    if old.written not in new.read:
        said.append(f"{spec.to_version} does not read format {old.written} and begins with no stored answers")
    return "; ".join(said)
