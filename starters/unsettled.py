"""The operator's queue: what of all threads a person has to settle."""

from typing import TYPE_CHECKING

from perdure.effects import Effect
from perdure.values import Value

if TYPE_CHECKING:
    from perdure.stores.base import Store

_PAGE = 1_000


class OpenEffect(Value):
    """An effect that is in doubt or needs attention, and whose it is. ``since``: when it was done, or else attempted
    (ISO 8601, UTC)."""

    thread_id: str
    agent: str
    tenant: str
    since: str
    effect: Effect

    @property
    def command(self) -> str:
        """What settles it."""
        return f"perdure resolve {self.thread_id} {self.effect.key} {choices(self.effect)} --as WHO"


def choices(effect: Effect) -> str:
    """What a person may say of an effect; a tool's own hook can be asked only how a call ended."""
    return "--done|--not-done" + ("|--ask" if effect.reconcile and effect.status == "in_doubt" else "")


async def unsettled(store: "Store", *, agent: str = "", tenant: str = "") -> list[OpenEffect]:
    """All that is open, the oldest first; of one agent or tenant where they are given."""
    found: list[OpenEffect] = []
    after, owners = ("", ""), dict[str, tuple[str, str]]()
    while page := await store.open_effects(after=after, limit=_PAGE):
        for row in page:
            if row.thread_id not in owners:
                thread = await store.thread(row.thread_id)
                owners[row.thread_id] = (thread.agent, thread.tenant) if thread else ("", "")
            found.append(_open(row.thread_id, *owners[row.thread_id], row.entry))
        after = (page[-1].thread_id, page[-1].entry.key)
    wanted = [each for each in found if agent in ("", each.agent) and tenant in ("", each.tenant)]
    return sorted(wanted, key=lambda each: (each.since, each.thread_id, each.effect.key))


def _open(thread_id: str, agent: str, tenant: str, effect: Effect) -> OpenEffect:
    since = effect.finished_at or effect.started_at
    return OpenEffect(thread_id=thread_id, agent=agent, tenant=tenant, since=since, effect=effect)
