"""What is checked before anything is sent, where the app is known; otherwise the worker does it."""

from typing import TYPE_CHECKING, Any

from perdure.errors import ThreadNotFound
from perdure.starters.cli.command import Session

if TYPE_CHECKING:
    from perdure.starters.client import Client


def check_state(
    session: Session, agent: str, state: dict[str, Any], *, overwrites: dict[str, Any] | None = None
) -> None:
    """Raise AgentNotFound, or InvalidInput where a value doesn't fit its channel."""
    app = session.app()
    if app is None:
        return
    known = app.graph(agent).state
    if state or overwrites:
        from perdure.state import Overwrite, reduce_updates

        given = state | {name: Overwrite(value) for name, value in (overwrites or {}).items()}
        reduce_updates(known, {}, {"The input": given}, step=0)


async def check_for_thread(
    session: Session, client: "Client", thread: str, state: dict[str, Any], *, overwrites: dict[str, Any] | None = None
) -> None:
    """The same by the thread's agent. Raises InvalidInput."""
    if not (state or overwrites) or not session.place.settings.app:
        return
    try:
        agent = (await client.status(thread)).agent
    except ThreadNotFound:  # Temporal has forgotten it; the store may still know it, and then the worker checks
        return
    check_state(session, agent, state, overwrites=overwrites)
