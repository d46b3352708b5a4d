"""Where a command finds its server, store and app: options, then the environment, then a running `perdure dev`."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from perdure.errors import InvalidInput
from perdure.settings import Settings
from perdure.workers.dev_record import NAME, DevRecord


class Place(BaseModel):
    """Where to go: the settings, and how to reach Temporal (empty: what Temporal's own configuration says)."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    address: str = ""
    namespace: str = ""
    profile: str = ""


def find_place(
    *, app: str = "", store: str = "", address: str = "", namespace: str = "", profile: str = "",
    environment: Mapping[str, str] = os.environ,
) -> Place:  # fmt: skip
    """The place that the options name, completed from the environment and from a running `perdure dev`.

    Where another server is named, by address or by profile, nothing of the development server applies: its store
    holds other threads. Raises InvalidInput for a setting that doesn't fit.
    """
    settings = _settings(app=app, store=store)
    dev = running_dev(settings.home)
    named = address or environment.get("TEMPORAL_ADDRESS", "")
    elsewhere = profile or environment.get("TEMPORAL_PROFILE") or (named and dev and named != dev.address)
    if dev is not None and not elsewhere:
        missing = {name: getattr(dev, name) for name in ("app", "store", "ui") if not getattr(settings, name)}
        settings, address = settings.model_copy(update=missing), dev.address
    return Place(settings=settings, address=address, namespace=namespace, profile=profile)


def running_dev(home: Path) -> DevRecord | None:
    """The development server of this home folder, if its process lives."""
    try:
        dev = DevRecord.model_validate_json((home / NAME).read_text("utf-8"))
    except (OSError, ValueError):  # none was started here, or it was another version's
        return None
    return dev if _alive(dev.pid) else None


def _alive(pid: int) -> bool:
    if pid <= 0:  # to `kill` these are groups of processes
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, so it lives
        return True
    return True


def _settings(**given: str) -> Settings:
    try:
        return Settings().model_copy(update={name: value for name, value in given.items() if value})
    except ValidationError as error:
        reasons = "; ".join(f"PERDURE_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise InvalidInput(f"The environment doesn't fit: {reasons}.") from error
