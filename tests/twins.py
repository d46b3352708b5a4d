"""Two stores that are asked the same, and must say the same."""

from typing import Any

from perdure.errors import PerdureError
from perdure.stores import Store
from perdure.values import Value

_TIMES = ("started_at", "finished_at", "undone_at")  # of the ledger: each store looks at its own clock


class Twins:
    """A store whose every call goes to two others. Their answers are compared, and the first one's is given."""

    def __init__(self, one: Store, other: Store) -> None:
        self.url = "twins://"
        self._stores = one, other

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            one, other = [await _outcome(getattr(store, name), args, kwargs) for store in self._stores]
            assert plain(one) == plain(other), f"{name} {args} {kwargs}:\n{plain(one)}\n{plain(other)}"
            if isinstance(one, PerdureError):
                raise one
            return one

        return call

    async def walk(self, thread_id: str) -> Any:
        """Both walks at their end."""
        one, other = [[checkpoint async for checkpoint in store.walk(thread_id)] for store in self._stores]
        assert one == other
        for checkpoint in one:
            yield checkpoint


async def _outcome(call: Any, args: Any, kwargs: Any) -> Any:
    try:
        return await call(*args, **kwargs)
    except PerdureError as error:
        return error


def plain(value: Any) -> Any:
    """An answer without what depends on the clock; an error by its class, its words and what it names."""
    if isinstance(value, PerdureError):
        return type(value), vars(value)
    if isinstance(value, Value):
        fields = {name: plain(getattr(value, name)) for name in type(value).model_fields}
        return fields | {name: bool(fields[name]) for name in _TIMES if name in fields}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


async def picture(store: Any) -> dict[str, Any]:
    """Everything that can be read of a store's threads."""
    seen: dict[str, Any] = {}
    for row in await store.threads():
        name = row.thread_id
        checkpoints = [checkpoint async for checkpoint in store.walk(name)]
        seen[name] = {
            "row": row, "checkpoints": checkpoints, "snapshots": await store.snapshots(name),
            "forks": await store.forks(name), "effects": await store.effects(name),
            "receipts": await store.receipts_under(name, ""), "audit": await store.audit(name),
            "lines": [await store.line(name, checkpoint.id) for checkpoint in checkpoints],
            "found": [await store.find(c.metadata, thread_id=name) for c in checkpoints if c.metadata],
        }  # fmt: skip
    return seen
