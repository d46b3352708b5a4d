"""perdure db: the checkpoint store, and what keeps it in order."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.starters.cli.command import Session, command
from perdure.starters.cli.database.integrity import repair, verify
from perdure.starters.cli.database.retention import delete, prune
from perdure.starters.cli.database.versions import upgrade
from perdure.starters.cli.importing import import_langgraph
from perdure.values import Value

if TYPE_CHECKING:
    from rich.table import Table

Partitions = Annotated[
    int,
    typer.Option(
        "--partitions", min=0, metavar="N", show_default=False,
        help="Spread the tables that grow over so many, by thread (PostgreSQL, when they are made).",
    ),
]  # fmt: skip


class Migrated(Value):
    """The migrations that ran just now, oldest first; none where the schema was up to date."""

    store: str
    applied: tuple[str, ...]


class Sizes(Value):
    """How much a store holds: rows by table, and bytes of all of it."""

    store: str
    rows: dict[str, int]
    bytes: int


class NewKey(Value):
    """A key for PERDURE_KEYS."""

    key: str


@command
async def migrate(session: Session, partitions: Partitions = 0) -> None:
    """Bring the store's schema up to date; a store that isn't there is made."""
    store = await session.store(create=True)
    done = Migrated(store=store.url, applied=tuple(await store.migrate(partitions=partitions)))
    session.out.show(done, f"{store.url}: {', '.join(done.applied) or 'up to date'}")


@command
async def size(session: Session) -> None:
    """Tell how much the store holds."""
    store = await session.store()
    sizes = Sizes(store=store.url, **await store.sizes())
    session.out.show(sizes, _table(sizes))


@command
async def new(session: Session) -> None:
    """Print a new key for PERDURE_KEYS; put it in front of those that are there."""
    from perdure.security.keyring import new_key

    key = NewKey(key=new_key())
    session.out.show(key, key.key)


def _table(sizes: Sizes) -> "Table":
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, rows in sorted(sizes.rows.items()):
        table.add_row(name, f"{rows:,}")
    table.add_row("bytes", f"{sizes.bytes:,}")
    return table


db = typer.Typer(help="The checkpoint store.")
for each in (migrate, verify, repair, upgrade, prune, delete, size, import_langgraph):
    db.command()(each)
keys = typer.Typer(help="Keys for what is sensitive.")
keys.command()(new)
db.add_typer(keys, name="keys")
