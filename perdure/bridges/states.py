"""A checkpoint of LangGraph's as ours: which part of it stands where.

Values, so that they are stored as what they changed by: each channel under its own name (a name that begins with ``$``
has another ``$`` before it); ``$versions`` and ``$seen``, by which LangGraph knows what to run next; ``$checkpoint``,
whatever else there is (the version of its format). Facts, because each step has others: time, updated channels, what
LangGraph writes into the metadata itself. Metadata that is the user's own is ours too, and can be searched.
"""

from collections.abc import Collection, Mapping
from typing import Any, cast

from langgraph.checkpoint.base import ChannelVersions, CheckpointMetadata
from langgraph.checkpoint.base import Checkpoint as TheirCheckpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from perdure.bridges.encoding import Codec
from perdure.canonical import Json
from perdure.checkpoint import Checkpoint, Source
from perdure.delta import Values
from perdure.values import Value

AGENT = "langgraph"  # whose threads they are, for `perdure list` and whoever else asks
REPLACES = "perdure.replaces"  # metadata of a checkpoint that stands for an earlier one of this id
_VERSIONS, _SEEN, _REST = "$versions", "$seen", "$checkpoint"
_APART = ("id", "ts", "updated_channels", "channel_values", "channel_versions", "versions_seen")
_THEIR_OWN = frozenset({"source", "step", "parents", "counters_since_delta_snapshot"})
_SOURCES: dict[Any, Source] = {"input": "input", "update": "update", "fork": "fork"}
_PLAIN = Codec(JsonPlusSerializer())  # what is around the values is no secret: it is searched


class Facts(Value):
    """What a checkpoint of ours knows besides, in its facts.

    ``metadata``: LangGraph's own part of it. ``id``: LangGraph's, where ours is another. ``parent``: LangGraph's parent
    (empty: none), where ours is another. ``latest``: the highest id of the thread, once ids and time disagree.
    ``namespace``: where our thread's id doesn't tell.
    """

    ts: str
    updated: Json = None
    metadata: dict[str, Json] = {}
    id: str = ""
    parent: str | None = None
    latest: str = ""
    namespace: str = ""

    @staticmethod
    def of(checkpoint: Checkpoint) -> "Facts":
        """Those of a checkpoint of ours."""
        return Facts.model_validate(checkpoint.facts[AGENT])

    def stored(self) -> dict[str, Json]:
        """As the facts of a checkpoint."""
        return {AGENT: self.model_dump(exclude_defaults=True)}


def their_id(checkpoint: Checkpoint) -> str:
    """The id by which LangGraph knows it."""
    return Facts.of(checkpoint).id or checkpoint.id


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def values_of(codec: Codec, theirs: TheirCheckpoint, before: Values, unchanged: Collection[str]) -> Values:
    """What is stored of a checkpoint after these values. The ``unchanged`` channels are taken over from there."""
    values: Values = {}
    for channel, value in theirs["channel_values"].items():
        name = _name(channel)
        values[name] = before[name] if channel in unchanged else codec.encode(value, before.get(name))
    values[_VERSIONS] = dict(theirs["channel_versions"])
    values[_SEEN] = {node: dict(versions) for node, versions in theirs["versions_seen"].items()}
    rest: dict[str, Any] = {key: value for key, value in theirs.items() if key not in _APART}
    values[_REST] = {key: codec.encode(value) for key, value in sorted(rest.items())}
    return values


def unchanged_channels(theirs: TheirCheckpoint, before: Values, new_versions: ChannelVersions) -> set[str]:
    """The channels that have the value that they had at the parent: LangGraph gives a changed one a new version."""
    versions = before.get(_VERSIONS, {})
    return {
        channel
        for channel in theirs["channel_values"]
        if channel not in new_versions
        and _name(channel) in before
        and channel in versions
        and theirs["channel_versions"].get(channel) == versions[channel]
    }


def checkpoint_of(codec: Codec, saved: Checkpoint, values: Values) -> TheirCheckpoint:
    """LangGraph's checkpoint again; it shares nothing with what is stored."""
    facts = Facts.of(saved)
    theirs: dict[str, Any] = {key: codec.decode(value) for key, value in values[_REST].items()}
    theirs |= {
        "id": facts.id or saved.id, "ts": facts.ts, "updated_channels": _PLAIN.decode(facts.updated),
        "channel_values": {
            _channel(name): codec.decode(value) for name, value in values.items() if not _is_ours(name)
        },
        "channel_versions": dict(values[_VERSIONS]),
        "versions_seen": {node: dict(versions) for node, versions in values[_SEEN].items()},
    }  # fmt: skip
    return cast("TheirCheckpoint", theirs)


def has_channels(values: Values, channels: Collection[str]) -> set[str]:
    """Those of the channels that have a value."""
    return {channel for channel in channels if _name(channel) in values}


def has_version(values: Values, channels: Collection[str]) -> set[str]:
    """Those of the channels that were written to at any time."""
    return {channel for channel in channels if channel in values[_VERSIONS]}


def channel_value(codec: Codec, values: Values, channel: str) -> Any:
    """The value of one channel, which must have one."""
    return codec.decode(values[_name(channel)])


def nodes_of(values: Values, before: Values) -> tuple[str, ...]:
    """The nodes that ran: those that have seen something new. LangGraph's own, as ``__input__``, are left out."""
    seen, earlier = values[_SEEN], before.get(_SEEN, {})
    return tuple(sorted(node for node in seen if seen[node] != earlier.get(node) and not node.startswith("__")))


def _name(channel: str) -> str:
    return f"${channel}" if channel.startswith("$") else channel


def _channel(name: str) -> str:
    return name.removeprefix("$")


def _is_ours(name: str) -> bool:
    return name.startswith("$") and not name.startswith("$$")


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def metadata_of(theirs: Mapping[str, Any]) -> tuple[dict[str, Json], dict[str, Json]]:
    """LangGraph's metadata as ours, which is searched by single values, and the rest of it for the facts."""
    encoded = {key: _PLAIN.encode(value) for key, value in theirs.items()}
    mine = {key for key, value in encoded.items() if key not in _THEIR_OWN and not isinstance(value, list | dict)}
    return (
        {key: value for key, value in encoded.items() if key in mine},
        {key: value for key, value in encoded.items() if key not in mine},
    )


def read_metadata(saved: Checkpoint) -> CheckpointMetadata:
    """LangGraph's metadata again."""
    stored = Facts.of(saved).metadata | {key: value for key, value in saved.metadata.items() if key != REPLACES}
    return cast("CheckpointMetadata", {key: _PLAIN.decode(value) for key, value in stored.items()})


def searchable(filter: Mapping[str, Any]) -> dict[str, Json]:
    """The part of a filter that the store can search by."""
    mine, _ = metadata_of(filter)
    return {key: value for key, value in mine.items() if value is not None}


def source_of(metadata: Mapping[str, Any]) -> Source:
    """What we call the source of a checkpoint."""
    return _SOURCES.get(metadata.get("source"), "step")
