"""``HOME/dev.json``: how the commands typed beside a running `perdure dev` find its server, store and app."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perdure.values import Value

NAME = "dev.json"


class DevRecord(Value):
    """What there is to know of a running `perdure dev`."""

    address: str
    ui: str
    app: str
    store: str
    pid: int


@contextmanager
def written(record: DevRecord, home: Path) -> Iterator[None]:
    """The record stands in the folder, whole from its first moment, and is gone at the end."""
    path, draft = home / NAME, home / f"{NAME}.new"
    draft.write_text(record.model_dump_json() + "\n", "utf-8")
    draft.replace(path)
    try:
        yield
    finally:
        remove(home)


def remove(home: Path) -> None:
    """Take the record away, if there is one."""
    (home / NAME).unlink(missing_ok=True)
