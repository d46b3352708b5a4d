"""From a URL to a store."""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from perdure.errors import InvalidInput, StoreUnreachable
from perdure.stores.base import Store

_GROUP = "perdure.stores"
_FORMS = "sqlite:///FILE, postgresql://USER:PASSWORD@HOST/DATABASE, redis://HOST/NUMBER, or memory://NAME"


def open_store(url: str) -> Store:
    """The store at a URL. Nothing is touched until its first use.

    ``sqlite:///relative/file`` or ``sqlite:////absolute/file``; ``postgresql://`` (see ``perdure.stores.postgres``);
    ``redis://``, ``rediss://`` or ``unix://`` (see ``perdure.stores.redis_store``); ``memory://name``, which is the
    same one for everybody in this process. Other kinds are opened by the packages that are installed for them: see
    docs/stores.md. Raises InvalidInput for a kind that nobody opens, and where a driver is missing.
    """
    kind = urlsplit(url).scheme
    opens = _KINDS.get(kind) or _installed(kind)
    opened = opens(url) if opens else None
    if opened is None:
        raise InvalidInput(f"{_shown(url)!r} names no store.", hint=f"Use {_FORMS}.")
    return opened


def open_existing(url: str) -> Store:
    """The store, which must be there already. Opening a SQLite file that isn't there would make an empty one, in
    which every thread seems to be lost.

    Raises InvalidInput, or StoreUnreachable if there is no such file.
    """
    store = open_store(url)
    kind, _, path = store.url.partition(":///")
    if kind == "sqlite" and not Path(path).exists():
        raise StoreUnreachable(
            f"There is no store {store.url}.", hint="Is PERDURE_STORE right? `perdure db migrate` makes one."
        )
    return store


# Drivers are slow to import, and some are not installed: only who opens such a store needs them.


def _sqlite(url: str) -> Store | None:
    parts = urlsplit(url)
    path = parts.path.removeprefix("/")
    if parts.netloc or parts.query or not path:
        return None
    from perdure.stores.sql_store import SqlStore

    return SqlStore.sqlite(Path(path))


def _postgres(url: str) -> Store | None:
    from perdure.stores.sql_store import SqlStore

    try:
        return SqlStore.postgres(url)
    except ImportError as error:
        raise InvalidInput(
            f"PostgreSQL needs a driver that is not installed ({error}).", hint="pip install 'perdure[postgres]'."
        ) from error


def _redis(url: str) -> Store | None:
    try:
        from perdure.stores.redis_store import RedisStore
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"Redis needs a driver that is not installed ({error}).", hint="pip install 'perdure[redis]'."
        ) from error
    return RedisStore.from_url(url)


def _memory(url: str) -> Store | None:
    from perdure.stores.memory import MemoryStore

    return MemoryStore.named(urlsplit(url).netloc)


def _installed(kind: str) -> Callable[[str], Store] | None:
    """What another package opens stores of this kind with: its entry point of this name."""
    found = entry_points(group=_GROUP, name=kind) if kind else ()
    return next((cast("Callable[[str], Store]", point.load()) for point in found), None)


_KINDS: dict[str, Callable[[str], Store | None]] = {
    "sqlite": _sqlite, "postgresql": _postgres, "postgres": _postgres, "redis": _redis, "rediss": _redis,
    "unix": _redis, "memory": _memory,
}  # fmt: skip


def _shown(url: str) -> str:
    """A URL without the password that may be in it."""
    kind, mark, rest = url.partition("://")
    return f"{kind}{mark}{rest.rpartition('@')[2]}"
