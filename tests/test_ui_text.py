"""What a person sees who has nothing but the Temporal UI: every text there, and that what it says to do works.

Long: one claim a text.
"""

import json
import re
import shlex
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.sdk.v1 import WorkflowInteractionDefinition, WorkflowMetadata
from temporalio.common import SearchAttributeKey

from perdure import Agent, App, Approval, Budget, Escalation, Outcome, ToolContext, ToolError, tool
from perdure.contracts import SEARCH_ATTRIBUTES, WORKFLOW
from perdure.testing import Rule, Script, call, say, together
from tests.cli import Cli, Done
from tests.conftest import MakeWorld
from tests.world import World, eventually

found: list[str] = []  # rooms that were asked about
TRICK = "x` **approved** ```json {} ```\n\n### Approval a9"


@tool(effect="compensable", compensate="refund", approval=Approval(approvers=["ann", "bob"], reason="It is money."))
async def pay(ctx: ToolContext, to: str, amount: int) -> int:
    """Pay."""
    return amount


@tool(effect="idempotent", hidden=True)
async def refund(ctx: ToolContext, receipt: int) -> None:
    """Get it back."""


@tool(approval=Approval(expires="2h"))
async def look(what: str) -> str:
    """Look at something, if somebody allows it."""
    return f"seen {what}"


@tool(effect="compensable", compensate="release")
async def reserve(ctx: ToolContext, item: str) -> str:
    """Reserve something."""
    return item


@tool(effect="idempotent", hidden=True)
async def release(ctx: ToolContext, receipt: str) -> None:
    """Put it back; what is shaky can't be."""
    if receipt == "shaky":
        raise ToolError("The shelf is locked.")


@tool(
    effect="idempotent",
    approval=Approval(
        approvers=["ann"], separation=["requester", "steps"], expires="2h",
        escalations=[Escalation(approvers=["cid"], quorum=2, expires="1d")],
    ),
)  # fmt: skip
async def publish(ctx: ToolContext, title: str) -> str:
    """Publish something: two people, neither of whom wants it."""
    return title


@tool(effect="compensable", compensate="unbook", saga="booking", reconcile="booked", attempts=1)
async def book(ctx: ToolContext, room: str) -> str:
    """Book a room; the line breaks, unless it is the red one."""
    if room != "red":
        raise ConnectionError("the line broke")
    return room


@tool(effect="idempotent", hidden=True)
async def unbook(ctx: ToolContext, receipt: str) -> None:
    """Somebody is in it."""
    raise ToolError("The room is\n\n### Approval a9")


@tool(hidden=True)
async def booked(ctx: ToolContext, room: str) -> Outcome:
    """It can't be told at first."""
    found.append(room)
    return Outcome.done(room) if found.count(room) > 1 else Outcome.unknown()


@tool(on_error="rollback")
async def stumble() -> str:
    """Fail, and the turn with it."""
    raise ToolError("The floor is wet.")


@tool(effect="irreversible")
async def wire(ctx: ToolContext, amount: int) -> str:
    """Send money; the line breaks."""
    raise ConnectionError("the line broke")


TOOLS = [pay, look, reserve, publish, book, stumble, wire]
app = App(
    agents=[
        Agent(name="desk", model="m", tools=TOOLS),
        Agent(name="frugal", model="m", tools=TOOLS, budget=Budget(steps=1)),
    ],
    tools=[refund, release, unbook, booked],
)
script = Script(
    rules=[
        Rule(when="hello", replies=[say("Good day.\n\n### Approval a1: `pay`")]),
        Rule(when="pay", replies=[call("pay", to="x", amount=250), say("Paid.")]),
        Rule(when="look", replies=[call("look", what="there"), say("Seen.")]),
        Rule(when="trick", replies=[call("look", what=TRICK), say("Seen.")]),
        Rule(when="both", replies=[together(call("look", what="here"), call("look", what="there")), say("Seen.")]),
        Rule(when="desk", replies=[call("reserve", item="desk"), call("stumble")]),
        Rule(when="shaky", replies=[call("reserve", item="shaky"), call("stumble")]),
        Rule(when="publish", replies=[call("publish", title="News"), say("Out.")]),
        Rule(when="room", replies=[call("book", room="blue"), say("Booked.")]),
        Rule(when="red", replies=[call("book", room="red"), call("stumble")]),
        Rule(when="all at once", replies=[together(call("wire", amount=7), call("look", what="here")), say("So.")]),
        Rule(when="wire", replies=[call("wire", amount=7), say("Settled.")]),
    ]
)


# ── looking, as the UI does ──────────────────────────────────────────────────────────────────────────────────────────


async def metadata(world: World, thread: str) -> WorkflowMetadata:
    """What the UI asks every workflow for."""
    answer: WorkflowMetadata = await world.handle(thread).query(
        "__temporal_workflow_metadata", result_type=WorkflowMetadata
    )
    return answer


async def details(world: World, thread: str) -> str:
    """The current details, Markdown."""
    return (await metadata(world, thread)).current_details


async def attributes(world: World, thread: str) -> dict[str, Any]:
    """Perdure's search attributes of the thread."""
    found = (await world.handle(thread).describe()).typed_search_attributes
    keys: list[SearchAttributeKey[Any]] = [
        SearchAttributeKey.for_int(name) if kind == "Int" else SearchAttributeKey.for_keyword(name)
        for name, kind in SEARCH_ATTRIBUTES.items()
    ]
    return {key.name.removeprefix("Perdure"): found.get(key) for key in keys}


async def shows(world: World, thread: str, **wanted: Any) -> None:
    """Wait until these are among the thread's search attributes."""
    await eventually(lambda: attributes(world, thread), lambda found: wanted.items() <= found.items())


async def timeline(world: World, thread: str) -> list[tuple[str, str]]:
    """What the history shows as bars: activities by their type, timers as "timer"; each with its summary."""
    shown: list[tuple[str, str]] = []
    for event in (await world.fetch(thread)).events:
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            kind = event.activity_task_scheduled_event_attributes.activity_type.name
        elif event.event_type == EventType.EVENT_TYPE_TIMER_STARTED:
            kind = "timer"
        else:
            continue
        shown.append((kind, _text(event.user_metadata.summary)))
    return shown


def _text(payload: Payload) -> str:
    text: str = json.loads(payload.data)
    return text


def named(definitions: Iterable[WorkflowInteractionDefinition]) -> dict[str, str]:
    """Descriptions by name."""
    return {definition.name: definition.description for definition in definitions}


def commands(text: str, verb: str) -> list[str]:
    """The commands that the text tells to run, as they stand there."""
    found: list[str] = re.findall(rf"`(perdure {verb} [^`]*)`", text)
    return found


def payloads(text: str) -> list[Any]:
    """The payloads that the text tells to send."""
    return [json.loads(block) for block in re.findall(r"^```json\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE)]


async def run(world: World, command: str, *, who: str) -> Done:
    """Run a command from the text, in a shell's words, as somebody."""
    program, *arguments = shlex.split(command)
    assert program == "perdure"
    done = await Cli(world)(*(who if word == "YOU" else word for word in arguments))
    assert done.code == 0, done
    return done


# ── what is always there ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_thread_says_what_it_is(make_world: MakeWorld) -> None:
    """Its agent and its first message in the list of workflows; where to look for the rest."""
    async with make_world(app, script) as world:
        thread, message_id = await world.begin("desk", "hello,\nyou")
        await world.ended(thread, message_id)
        run = await world.handle(thread).describe()
        assert await run.static_summary() == "desk: hello, you"
        static = await run.static_details() or ""
        assert "agent **desk**" in static
        assert f"`perdure status {thread}`" in static
        await shows(world, thread, Agent="desk", Tenant="default", Status="idle", Pending=0)
        shown = await details(world, thread)
        assert shown.startswith("## idle\nWaiting for a message.")
        assert "### Turn 1: answered\n> Good day.\n> \n> ### Approval a1: `pay`" in shown, (
            "an answer can't pose as ours"
        )
        assert (await timeline(world, thread))[-1] == ("timer", "idle: waits for a message")


async def test_messages_and_queries_are_explained(make_world: MakeWorld) -> None:
    """Every signal, update and query that a person can choose in the UI has a name and a description."""
    async with make_world(app, script) as world:
        thread, message_id = await world.begin("desk", "hello")
        await world.ended(thread, message_id)
        definition = (await metadata(world, thread)).definition
        assert definition.type == WORKFLOW
        signals, updates = named(definition.signal_definitions), named(definition.update_definitions)
        queries = {name: said for name, said in named(definition.query_definitions).items() if name[0] != "_"}
        assert set(signals) == {"send", "approve", "reject", "answer", "cancel_turn"}
        assert {"send", "decide", "compensate", "resolve_effect", "extend_budget", "close"} <= set(updates)
        assert {"update_state", "rewind", "resume", "answer", "acquire_lease", "release_lease"} <= set(updates)
        assert set(queries) == {"checkpoint", "status", "approvals", "effects"}
        for name, said in [*signals.items(), *updates.items(), *queries.items()]:
            assert said, f"{name} has no description"
        for verdict in ("approve", "reject"):
            for key in ("request_id", "approver", "digest", "reason"):
                assert f'"{key}"' in signals[verdict]


# ── a thread that waits for an approval ──────────────────────────────────────────────────────────────────────────────


async def test_what_waits_for_approval_is_shown_with_its_answer(make_world: MakeWorld) -> None:
    """Tool, arguments, reason, who, how many, until when; the timer says the same on the timeline."""
    async with make_world(app, script) as world:
        thread, message_id = await world.begin("desk", "pay")
        (request,) = (await world.opened(thread)).open
        shown = await details(world, thread)
        assert shown.startswith("## awaiting approval\nWaiting for a person to decide.")
        assert "### Approval a1: `pay`\nIt is money." in shown
        assert '- to: `"x"`\n- amount: `250`' in shown
        assert f"Who: ann, bob (0 of 1). Until {request.expires_at:%Y-%m-%d %H:%M} UTC." in shown
        await shows(world, thread, Status="awaiting_approval", Pending=1, Step=1)
        assert "Asked for by: desk." in shown
        waiting = ("timer", 'approval a1: pay(to="x", amount=250) waits for ann or bob')
        await eventually(lambda: timeline(world, thread), lambda bars: waiting in bars)
        await eventually(
            lambda: timeline(world, thread), lambda bars: ("append_audit", "audit: request.opened") in bars
        )

        (command,) = commands(shown, "approve")
        assert command == f"perdure approve {thread} a1 --as YOU"
        await run(world, command, who="ann")
        assert (await world.ended(thread, message_id)).answer == "Paid."
        await shows(world, thread, Status="idle", Pending=0)
        assert "approval a1: approved by ann" in await details(world, thread)


@pytest.mark.parametrize(("verdict", "outcome"), [("approve", "approved"), ("reject", "rejected")])
async def test_the_shown_payload_answers_as_it_stands(make_world: MakeWorld, verdict: str, outcome: str) -> None:
    """Copied into the UI's signal dialog it decides; nothing has to be filled in where anyone may."""
    async with make_world(app, script) as world:
        thread, message_id = await world.begin("desk", "look")
        await world.opened(thread)
        shown = await details(world, thread)
        assert "Who: anyone (0 of 1)." in shown
        (payload,) = payloads(shown)
        await world.handle(thread).signal(verdict, payload)
        await world.ended(thread, message_id)
        (closed,) = (await world.client.approvals(thread)).closed
        assert (closed.outcome, closed.decisions[0].approver) == (outcome, "YOU")
        assert payloads(await details(world, thread)) == []


async def test_the_shown_payload_with_a_name_answers_for_the_named(make_world: MakeWorld) -> None:
    """As it stands it is refused, which is shown; with an approver's name in it, it approves."""
    async with make_world(app, script) as world:
        thread, message_id = await world.begin("desk", "pay")
        await world.opened(thread)
        (payload,) = payloads(await details(world, thread))
        await world.handle(thread).signal("approve", payload)
        refused = await eventually(lambda: details(world, thread), lambda shown: "### Refused decisions" in shown)
        assert "approve: YOU may not decide; approvers: ann, bob." in refused
        await world.handle(thread).signal("approve", payload | {"approver": "bob"})
        assert (await world.ended(thread, message_id)).answer == "Paid."


async def test_several_requests_are_shown_side_by_side(make_world: MakeWorld) -> None:
    """Each with its own command and payload, which decide only it."""
    async with make_world(app, script) as world:
        thread, message_id = await world.begin("desk", "both")
        await world.opened(thread, 2)
        shown = await details(world, thread)
        assert commands(shown, "approve") == [f"perdure approve {thread} {name} --as YOU" for name in ("a1", "a2")]
        first, second = payloads(shown)
        await shows(world, thread, Pending=2)
        await world.handle(thread).signal("approve", second)
        assert [request.id for request in (await world.opened(thread)).open] == ["a1"]
        assert payloads(await details(world, thread)) == [first]
        await world.handle(thread).signal("reject", first)
        assert (await world.ended(thread, message_id)).outcome == "answered"


async def test_arguments_cannot_pose_as_the_request(make_world: MakeWorld) -> None:
    """Markdown in what the model wrote stays inside the argument: one request, one payload, the real one."""
    async with make_world(app, script) as world:
        thread, _ = await world.begin("desk", "trick")
        (request,) = (await world.opened(thread)).open
        shown = await details(world, thread)
        assert f"- what: ````{json.dumps(TRICK)}````" in shown
        assert re.findall(r"^### Approval (\w+)", shown, re.MULTILINE) == ["a1"]
        assert [payload["digest"] for payload in payloads(shown)] == [request.digest]
        await world.client.cancel(thread)


async def test_who_may_decide_now_is_shown_and_who_may_not(make_world: MakeWorld) -> None:
    """After an escalation, with duties separated, and with what somebody changed: old and new."""
    async with make_world(app, script) as world:
        thread, accepted = await world.client.start("desk", "publish", thread=world.thread(), sender="eve")
        (request,) = (await world.opened(thread)).open
        shown = await details(world, thread)
        assert "Who: ann (0 of 1). Until" in shown
        assert "Asked for by: eve, who can't approve it.\nNor can who approved another call of this turn." in shown
        assert "Escalation" not in shown and "changed" not in shown
        await world.client.decide(thread, "approve", request, approver="ann", arguments={"title": "Other `news`"})
        await world.forward(thread, timedelta(hours=3))
        shown = await eventually(lambda: details(world, thread), lambda text: "Escalation" in text)
        assert '- title: ``"Other `news`"``' in shown
        assert '- ann changed title: `"News"` → ``"Other `news`"``' in shown
        assert "Who: ann, cid (0 of 2). Until" in shown
        assert "Asked for by: eve, ann, who can't approve it." in shown
        assert "Escalation 1 of 1: nobody had decided in time." in shown
        (payload,) = payloads(shown)
        await world.handle(thread).signal("reject", payload | {"approver": "cid"})
        assert (await world.ended(thread, accepted.message_id)).outcome == "answered"


# ── a thread with something left outside ─────────────────────────────────────────────────────────────────────────────


async def test_a_rolled_back_turn_says_what_was_undone(make_world: MakeWorld) -> None:
    """The reason and the residue in the details; each step by its tool on the timeline."""
    async with make_world(app, script) as world:
        thread, message_id = await world.begin("desk", "desk")
        await world.ended(thread, message_id)
        shown = await details(world, thread)
        assert shown.startswith("## failed\nThe last turn failed.")
        assert "### Turn 1: failed\nstumble(): The floor is wet." in shown
        assert '- Undone: reserve(item="desk").' in shown
        await shows(world, thread, Status="failed", Pending=0)
        assert await timeline(world, thread) == [
            ("open_turn", "open turn: desk"),
            ("call_model", "turn 1, step 1: ask m"),
            ("tool:reserve", 'reserve(item="desk")'),
            ("call_model", "turn 1, step 3: ask m"),
            ("tool:stumble", "stumble()"),
            ("load_saga", "what is there to undo?"),
            ("undo:release", 'undo reserve(item="desk")'),
            ("merge_step", "note the rollback"),
            ("append_audit", "audit: saga.rolled_back"),
            ("timer", "idle: waits for a message"),
        ]


@pytest.mark.parametrize("done", [True, False])
async def test_what_needs_attention_is_shown_with_its_commands(make_world: MakeWorld, done: bool) -> None:
    """What could not be undone, why, and the exact commands that settle it or try again."""
    async with make_world(app, script) as world:
        thread, message_id = await world.begin("desk", "shaky")
        await world.ended(thread, message_id)
        (effect,) = await world.client.effects(thread)
        shown = await details(world, thread)
        assert shown.startswith("## needs attention\nSomething could not be undone. A person has to look.")
        label = 'reserve(item="shaky")'
        assert f"- **needs attention**: {label} (`{effect.key}`, turn 1) The shelf is locked." in shown
        assert f"- Could not be undone, needs attention: {label}." in shown
        assert commands(shown, "compensate") == [f"perdure compensate {thread} --turn 1"]
        await shows(world, thread, Status="needs_attention", Pending=1)
        settle = f"perdure resolve {thread} {effect.key}"
        assert commands(shown, "resolve") == [f"{settle} --done --as YOU", f"{settle} --not-done --as YOU"]
        await run(world, commands(shown, "resolve")[0 if done else 1], who="ann")
        (effect,) = await world.client.effects(thread)
        assert (effect.status, effect.settled_by) == ("done" if done else "undone", "ann")
        assert "### Needs a person" not in await details(world, thread)
        await shows(world, thread, Pending=0)


async def test_an_effect_in_doubt_is_shown_with_its_command(make_world: MakeWorld) -> None:
    """What was attempted, how it ended, and the exact command after which the turn goes on."""
    async with make_world(app, script) as world:
        thread, message_id = await world.begin("desk", "wire")
        await world.stands(thread, "in_doubt")
        (effect,) = await world.client.effects(thread)
        shown = await details(world, thread)
        assert shown.startswith("## in doubt\nAn effect was attempted and its outcome is unknown.")
        assert f"- **in doubt**: wire(amount=7) (`{effect.key}`, turn 1) ConnectionError: the line broke" in shown
        await shows(world, thread, Status="in_doubt", Pending=1)
        assert ("settle_effect", "wire(amount=7) is in doubt") in await timeline(world, thread)
        await run(world, commands(shown, "resolve")[0], who="ann")
        assert (await world.ended(thread, message_id)).answer == "Settled."
        assert ("settle_effect", "wire(amount=7) is done, says ann") in await timeline(world, thread)
        await shows(world, thread, Status="idle", Pending=0)


async def test_the_hook_that_can_tell_is_shown_with_its_command(make_world: MakeWorld) -> None:
    """And the saga that the effect belongs to."""
    async with make_world(app, script) as world:
        thread, message_id = await world.begin("desk", "room")
        await world.stands(thread, "in_doubt")
        (effect,) = await world.client.effects(thread)
        shown = await details(world, thread)
        assert f'- **in doubt**: book(room="blue") (`{effect.key}`, saga booking) ConnectionError: the line' in shown
        assert "or let `booked` find out" in shown
        assert ("reconcile:booked", 'was it done? book(room="blue")') in await timeline(world, thread)
        await run(world, commands(shown, "resolve")[-1], who="ann")
        assert (await world.ended(thread, message_id)).answer == "Booked."
        assert "### Needs a person" not in await details(world, thread)
        await shows(world, thread, Status="idle", Pending=0)


async def test_an_error_of_a_tool_cannot_pose_as_a_request(make_world: MakeWorld) -> None:
    """It stays on its line; a saga with a name is tried again by that."""
    async with make_world(app, script) as world:
        thread, message_id = await world.begin("desk", "red")
        await world.ended(thread, message_id)
        shown = await details(world, thread)
        assert "saga booking) The room is ### Approval a9\n" in shown
        assert commands(shown, "compensate") == [f"perdure compensate {thread} --saga booking"]


async def test_doubt_is_not_hidden_by_what_else_waits(make_world: MakeWorld) -> None:
    """A request is open and an effect is in doubt, both in one turn: the status is that of the doubt, since the other
    can be answered all the same; details, attention, what is waited for and the number of pending things have both."""
    async with make_world(app, script) as world:
        thread, message_id = await world.begin("desk", "all at once")
        await world.opened(thread)
        status = await world.stands(thread, "in_doubt")
        assert (len(status.attention), len(status.waiting_for)) == (1, 1)
        shown = await details(world, thread)
        assert shown.startswith("## in doubt\n")
        assert "### Approval a1: `look`" in shown and "- **in doubt**: wire(amount=7)" in shown
        await shows(world, thread, Status="in_doubt", Pending=2)
        listed = await eventually(lambda: world.client.threads(status="in_doubt"), lambda found: found != [])
        assert [summary.pending for summary in listed if summary.thread_id == thread] == [2]
        (request,) = (await world.client.approvals(thread)).open
        await world.client.decide(thread, "approve", request, approver="ann")
        await shows(world, thread, Status="in_doubt", Pending=1)
        (effect,) = [e for e in await world.client.effects(thread) if e.status == "in_doubt"]
        await world.client.resolve(thread, effect.key, done=True, by="ann")
        assert (await world.ended(thread, message_id)).outcome == "answered"
        await shows(world, thread, Status="idle", Pending=0)


async def test_a_dry_run_says_that_it_is_one(make_world: MakeWorld) -> None:
    """Also once it has ended; the thread that it comes from says nothing of the kind."""
    async with make_world(app, script) as world:
        thread, message_id = await world.begin("desk", "hello")
        await world.ended(thread, message_id)
        head = (await world.client.history(thread))[0].id
        dry = (await world.client.fork(thread, head, thread=world.thread(), dry_run=True)).thread_id
        accepted = await world.client.send(dry, "hello")
        await world.ended(dry, accepted.message_id)
        assert "**A dry run**: nothing is done outside" in await details(world, dry)
        assert "dry run" not in await details(world, thread)


async def test_a_turn_out_of_budget_is_shown_with_its_command(make_world: MakeWorld) -> None:
    """What is used up, and the exact command after which the turn goes on."""
    async with make_world(app, script) as world:
        thread, _ = await world.begin("frugal", "look")
        await world.stands(thread, "out_of_budget")
        shown = await details(world, thread)
        assert shown.startswith("## out of budget\nThe turn has used up its budget.")
        assert "1 of 1 steps used." in shown
        (command,) = commands(shown, "extend")
        await run(world, command, who="ann")
        await world.opened(thread)
