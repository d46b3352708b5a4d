"""Checkpoints as people see them: histories, trees, states, differences."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree as Drawing

from perdure.checkpoint import Checkpoint
from perdure.starters.branches import Stretch, Tree
from perdure.starters.cli.output import line, safe
from perdure.starters.cli.render.tables import moment, state_of, table
from perdure.starters.compare import Comparison, Side
from perdure.starters.entries import Change, Difference, HistoryEntry
from perdure.starters.talk import body, is_talk

_SHORT = 8  # characters of the end of an id; its beginning is only the time
_SHOWN = 200  # characters of a value in a difference


# ── histories and trees ──────────────────────────────────────────────────────────────────────────────────────────


def history(thread_id: str, page: Sequence[HistoryEntry]) -> RenderableType:
    """Checkpoints, newest first. Those of a thread that this one was forked from are named by their thread."""
    columns = (
        "checkpoint", "step", "turn", "source", "changes", "tokens", "effects", "metadata", "bytes", "made (UTC)",
    )  # fmt: skip
    rows = [
        (
            c.id, c.step, c.turn, _source(thread_id, c), _changes(c), c.usage.tokens or "",
            ", ".join(f"{effect.tool} {effect.status.replace('_', ' ')}" for effect in c.effects), _metadata(c), c.size,
            moment(c.created_at),
        )
        for c in page
    ]  # fmt: skip
    return table(columns, rows, empty="No checkpoints.")


def found(checkpoints: Sequence[Checkpoint]) -> RenderableType:
    """Checkpoints of any threads."""
    rows = [
        (c.id, c.thread_id, c.step, c.turn, " ".join((c.source, *c.nodes)), _metadata(c), moment(c.created_at))
        for c in checkpoints
    ]
    columns = ("checkpoint", "thread", "step", "turn", "source", "metadata", "made (UTC)")
    return table(columns, rows, empty="No checkpoint has this in its metadata.")


def _source(thread_id: str, c: HistoryEntry) -> str:
    origin = f"of {c.parent_thread}" if c.parent_thread else ""
    elsewhere = f"(in {c.thread_id})" if c.thread_id != thread_id else ""
    return " ".join(filter(None, (c.source, origin, *c.nodes, elsewhere, "(left)" if c.left else "")))


def _metadata(c: Checkpoint) -> str:
    return " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in c.metadata.items())


def tree(drawn: Tree) -> RenderableType:
    """The branches of a thread: the head's line downwards, what was left and what was forked beside it."""
    origin = f" (fork of {drawn.origin_thread} at …{drawn.origin_id[-_SHORT:]})" if drawn.origin_thread else ""
    root = Drawing(Text(line(drawn.thread_id + origin), style="bold"), guide_style="dim")
    for branch in drawn.branches:
        _grow(root, branch)
    return root


def _grow(drawing: Drawing, branch: Sequence[Stretch], *, left: bool = False) -> None:
    for stretch in branch:
        here = drawing.add(_stretch(stretch, left=left))
        for thread in stretch.forks:
            here.add(Text(line(f"fork: {thread}"), style="cyan"))
        for side in stretch.left:
            _grow(here.add(Text("left by a rewind", style="dim")), side, left=True)


def _stretch(stretch: Stretch, *, left: bool) -> Text:
    steps = _range("step", stretch.first_step, stretch.last_step)
    turns = _range("turn", stretch.first_turn, stretch.last_turn) if stretch.last_turn else ""
    source = "" if stretch.source in ("input", "step") else stretch.source
    words = "  ".join(filter(None, (steps, source, turns, f"…{stretch.last[-_SHORT:]}")))
    return Text(words, style="dim" if left else "").append("  ← head" if stretch.is_head else "", style="green")


def _range(word: str, first: int, last: int) -> str:
    return f"{word} {first}" if first == last else f"{word}s {first}-{last}"


def _changes(checkpoint: Checkpoint) -> str:
    return ", ".join(f"{channel} {_change(operation)}" for channel, operation in checkpoint.delta.items())


def _change(operation: dict[str, Any]) -> str:
    added = len(operation.get("items", operation.get("put", ())))
    return f"+{added}" if added else str(operation["op"])


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────────────


def state(values: dict[str, Any]) -> RenderableType:
    """A state: the conversation, then the other channels."""
    talk = values["messages"] if is_talk(values.get("messages")) else []
    parts = [Text(f"{message['role']}: ", style="bold").append(safe(body(message)), "not bold") for message in talk]
    parts += [_channel(name, value) for name, value in values.items() if not (talk and name == "messages")]
    return Group(*parts) if parts else Text("The state is empty.", style="dim")


def _channel(name: str, value: Any) -> Text:
    body = json.dumps(value, ensure_ascii=False, indent=2 if isinstance(value, dict | list) and value else None)
    return Text(f"{line(name)}: ", style="bold").append(safe(body), style="not bold")


# ── differences ──────────────────────────────────────────────────────────────────────────────────────────────────


def difference(found: Difference) -> RenderableType:
    """How two states differ, channel by channel: what came (+), what went (-), what is another (~)."""
    one, other = found.before, found.after
    across = one.thread_id != other.thread_id
    places = [
        f"step {place.step} …{place.checkpoint_id[-_SHORT:]}" + (f" of {place.thread_id}" if across else "")
        for place in (one, other)
    ]
    if not found.changes:
        but = ", but for the ids of messages" if found.patch else ""
        return Text(line(f"{places[0]} and {places[1]} are the same{but}."), style="dim")
    parts: list[Text] = [Text(line(f"from {places[0]} to {places[1]}"), style="dim")]
    channel = ""
    for change in found.changes:
        if change.path[0] != channel:
            channel = change.path[0]
            parts.append(Text(line(channel), style="bold"))
        parts.append(_line(change))
    return Group(*parts)


def comparison(found: Comparison) -> RenderableType:
    """Two branches since their common past: what each has cost, what each did outside, how their states differ."""
    sides = (found.one, found.other)
    common = found.common
    where = f"step {common.step} …{common.checkpoint_id[-_SHORT:]} of {common.thread_id}" if common else "none"
    names = [_side(side) for side in sides]
    costs = [
        ("steps", *(side.steps for side in sides)),
        ("model calls", *(side.usage.calls for side in sides)),
        ("tokens", *(side.usage.tokens for side in sides)),
        ("tokens saved", *(side.usage.saved for side in sides)),
    ]
    calls = table(("call", *names), _calls(found), empty="Nothing was done outside.")
    cost = table(("since", *names), costs, empty="")
    past = Text(line(f"common past: {where}"), style="dim")
    return Group(past, cost, Text(), calls, Text(), difference(found.difference))


def _side(side: Side) -> str:
    at = f"{side.place.thread_id} at step {side.place.step}"
    return f"{at} (dry run)" if side.dry_run else at


def _calls(found: Comparison) -> list[tuple[object, ...]]:
    """The calls of both, the same ones on one line."""
    theirs = {effect.key: effect for effect in found.other.effects}
    same = {pair.one: theirs.pop(pair.other) for pair in found.same}
    rows: list[tuple[object, ...]] = []
    for effect in found.one.effects:
        twin = same.get(effect.key)
        rows.append((effect.label(), state_of(effect.status), state_of(twin.status) if twin else ""))
    return rows + [(effect.label(), "", state_of(effect.status)) for effect in theirs.values()]


def _line(change: Change) -> Text:
    place = "".join(f"[{part}]" if part.isdecimal() else f".{line(part)}" for part in change.path[1:]).lstrip(".")
    place += " " if place else ""
    old, new = _cut(line(change.old)), _cut(line(change.new))
    if change.op == "add":
        return Text(f"  + {place}{new}", style="green")
    if change.op == "remove":
        return Text(f"  - {place}{old}", style="red")
    return Text(f"  ~ {place}{old} → {new}", style="yellow")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
