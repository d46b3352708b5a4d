"""A thread costs the same at every step, however long it is: in Temporal's history, and in the store."""

import random
import string
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from perdure import Agent, App, Budget, tool
from perdure.contracts import CALL_MODEL
from perdure.testing import Conversation, Reply, Script, call, say
from perdure.view import BOUND
from tests.conftest import MakeWorld

_rng = random.Random(7)


class Loop(Script):
    """Asks for the tool so many times, each time with about 200 bytes of arguments, then answers."""

    steps: int

    def reply(self, conversation: Conversation) -> Reply:
        """See base class."""
        asked = sum(1 for message in conversation.messages if message.role == "assistant" and message.tool_calls)
        last = next(m.text for m in reversed(conversation.messages) if m.role == "tool") if asked else "0:"
        number = int(last.partition(":")[0]) + 1  # the window may have cut the beginning off, so the tool counts
        return say("Enough.") if number > self.steps else call("look", number=number, about=noise(180))


def noise(length: int) -> str:
    """Text that no compression makes much shorter."""
    return "".join(_rng.choices(string.ascii_letters + string.digits, k=length))


@tool
def look(number: int, about: str) -> str:
    """Look something up: 500 bytes."""
    return f"{number}:{noise(500 - len(str(number)) - 1)}"


app = App(agents=[Agent(name="loop", model="m", tools=[look], budget=Budget(steps=None), context_tokens=4_000)])


def bytes_of_steps(events: list[HistoryEvent]) -> list[int]:
    """History bytes from one model call to the next."""
    sizes: list[int] = []
    for event in events:
        scheduled = event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
        if scheduled and event.activity_task_scheduled_event_attributes.activity_type.name == CALL_MODEL.name:
            sizes.append(0)
        if sizes:
            sizes[-1] += event.ByteSize()
    return sizes


def stored(folder: Path) -> int:
    """Bytes of the store's files."""
    return sum(file.stat().st_size for file in folder.glob("store.db*"))


async def test_a_thousand_steps_cost_their_own_bytes(make_world: MakeWorld, tmp_path: Path) -> None:
    """A turn of 1,000 steps continues as new and goes on without losing one.

    In Temporal's history steps 190 to 210 cost the bytes of steps 10 to 30, within a tenth: references, not the
    conversation. The store holds at most three times the payload. Queries stay bounded.
    """
    async with make_world(app, Loop(steps=1_000)) as world:
        thread, message = await world.begin("loop", "Go on.")
        result = await world.ended(thread, message)
        assert (result.outcome, result.answer, result.steps) == ("answered", "Enough.", 2_001)

        runs = await world.runs(thread)
        assert len(runs) > 1
        sizes = bytes_of_steps(list(runs[0].events))
        assert sum(sizes[190:210]) == pytest.approx(sum(sizes[10:30]), rel=0.1)

        answer = await world.client.checkpoint(thread)
        assert answer.head is not None
        assert answer.head.step == 2_001
        assert len(answer.state["messages"]) == 2_002
        assert len((await world.client.status(thread)).model_dump_json()) < BOUND
        payload = sum([checkpoint.size async for checkpoint in world.store.walk(thread)])
    assert payload < stored(tmp_path) <= 3 * payload
