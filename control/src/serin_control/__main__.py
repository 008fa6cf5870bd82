"""`python -m serin_control`: one control plane as a process."""

import sys
from collections.abc import Sequence

from serin_mesh import logs, metrics
from serin_mesh.server import Readiness, run_main, serve
from serin_mesh.settings import SettingsError, load_settings

from serin_control.assembly import CALLERS, Control
from serin_control.config import ConfigInvalid
from serin_control.config.reading import read_text
from serin_control.declared import InitialFile
from serin_control.errors import StoreUnsafe
from serin_control.gauges import add_gauges
from serin_control.settings import ControlSettings

PROGRAM = "serin-control"


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status."""
    settings = load_settings(ControlSettings, argv, PROGRAM)
    return run_main(PROGRAM, _run(settings))


async def _run(settings: ControlSettings) -> None:
    logs.configure_logs("control", settings)
    store, rollouts = None, None
    if settings.state_redis:
        from serin_control.redis_store import RedisStore  # only where there is a Redis
        from serin_control.rollouts.redis_store import RedisRollouts

        store, rollouts = RedisStore(settings.state_redis), RedisRollouts(settings.state_redis)
    try:
        if store is not None:
            await store.check()
        control = Control(
            store,
            rollouts=rollouts,
            name=settings.instance,
            address=f"{settings.dial_host}:{settings.port}" if settings.port else "",
            initial=_initial(settings),
            edge=settings.edge,
            on_alarm=_log_alarm,
            channels=settings,
        )
        await control.start()
        add_gauges(control, metrics.registry())
        readiness = Readiness()

        async def live() -> None:
            readiness.ready()
            await control.run()

        await serve(
            settings,
            "control",
            control.register,
            readiness=readiness,
            callers=CALLERS,
            startup=live,
            shutdown=control.save,
        )
    except ConfigInvalid as error:
        raise SettingsError(f"--config-file: {error}") from error
    except StoreUnsafe as error:
        raise SettingsError(f"--state-redis: {error}") from error
    finally:
        if store is not None:
            await store.close()
        if rollouts is not None:
            await rollouts.close()


def _initial(settings: ControlSettings) -> InitialFile | None:
    path = settings.config_file
    return InitialFile(str(path), read_text(path)) if path is not None else None


def _log_alarm(key: str, sentence: str, raised: bool) -> None:
    log = logs.get()
    if raised:
        log.warning("alarm.raised", alarm=key, sentence=sentence)
    else:
        log.info("alarm.cleared", alarm=key, sentence=sentence)


if __name__ == "__main__":
    sys.exit(main())
