"""From a URL to a store."""

from pathlib import Path
from urllib.parse import urlsplit

from perdure.errors import InvalidInput, StoreUnreachable
from perdure.stores.base import Store


def open_store(url: str) -> Store:
    """The store at ``sqlite:///relative/file`` or ``sqlite:////absolute/file``. Nothing is touched until its first use.

    Raises InvalidInput for another kind of URL.
    """
    parts = urlsplit(url)
    path = parts.path.removeprefix("/")
    if parts.scheme != "sqlite" or parts.netloc or not path:
        raise InvalidInput(f"{url!r} names no store.", hint="Use sqlite:///FILE, or sqlite:////ABSOLUTE/FILE.")
    from perdure.stores.sql_store import SqlStore  # SQLAlchemy is slow to import: only who opens a store pays

    return SqlStore.sqlite(Path(path))


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
