"""What the configuration of a server can lose, in words."""

from collections.abc import Mapping
from typing import Any

from perdure.errors import StoreUnreachable
from perdure.stores.redis.server import Server

_ASKED = ("appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy", "min-replicas-to-write")


async def cautions(server: Server) -> list[str]:
    """One sentence for each thing that may be lost, empty where nothing is. Raises StoreUnreachable."""
    infos = [_fields(answer) for answer in await server.ask_everywhere("INFO")]
    settings = await _settings(server) or [None for _ in infos]
    found = [caution for node in zip(settings, infos, strict=True) for caution in _of_node(*node)]
    return list(dict.fromkeys(found))  # the nodes of a cluster mostly say the same


def _of_node(settings: Mapping[str, str] | None, info: Mapping[str, str]) -> list[str]:
    if settings is None:
        return [
            "The server doesn't tell its settings (CONFIG is forbidden): what it loses when it crashes can't be known; "
            "docs/redis.md says what to ask its provider.",
            *_replication({}, info),
        ]
    return [*_persistence(settings, info), *_memory(settings), *_replication(settings, info)]


def _persistence(settings: Mapping[str, str], info: Mapping[str, str]) -> list[str]:
    if settings.get("appendonly") != "yes":
        if settings.get("save"):
            return [
                "The server writes snapshots only (appendonly is no): a crash loses every commit since the last one."
            ]
        return ["The server writes nothing to disk (appendonly is no, no save): a restart loses everything."]
    found = {
        "everysec": "appendfsync is everysec: a crash of the machine loses the commits of the last second or two.",
        "no": "appendfsync is no: a crash of the machine loses the commits of half a minute or more.",
    }.get(settings.get("appendfsync", ""))
    failing = info.get("aof_last_write_status", "ok") != "ok" or info.get("aof_last_bgrewrite_status", "ok") != "ok"
    broken = ["The server's last write of its append-only file failed: what it holds may be lost."] if failing else []
    return [*([found] if found else []), *broken]


def _memory(settings: Mapping[str, str]) -> list[str]:
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy == "noeviction" or settings.get("maxmemory", "0") == "0":
        return []
    what = "cached results" if policy.startswith("volatile-") else "parts of threads"
    return [f"maxmemory-policy is {policy}: the server drops {what} when its memory is full; set noeviction."]


def _replication(settings: Mapping[str, str], info: Mapping[str, str]) -> list[str]:
    if info.get("role") == "slave":
        return ["The server is a replica: nothing can be written here."]
    if info.get("connected_slaves", "0") == "0" and info.get("cluster_enabled") != "1":
        return []
    found = "Replicas follow later: when one of them takes over, commits that it has not received are lost"
    if settings.get("min-replicas-to-write") == "0":
        found += ", and a primary that was cut off goes on taking commits (min-replicas-to-write is 0)"
    return [f"{found}."]


async def _settings(server: Server) -> list[dict[str, str] | None]:
    """The settings of each node; none where they are nobody's business."""
    try:
        answers = [await server.ask_everywhere("CONFIG", "GET", name) for name in _ASKED]
    except StoreUnreachable as error:
        if "NOPERM" in str(error) or "no permissions" in str(error) or "unknown command" in str(error).lower():
            return []
        raise
    nodes = zip(*answers, strict=True)
    return [{name: value for answer in node for name, value in _fields(answer).items()} for node in nodes]


def _fields(answer: Any) -> dict[str, str]:
    """What a server told of itself. The driver reads some answers and leaves others as they are."""
    if isinstance(answer, bytes):
        lines = (line.partition(":") for line in answer.decode().splitlines() if ":" in line)
        return {name: value for name, _, value in lines}
    if not isinstance(answer, dict):
        answer = dict(zip(answer[::2], answer[1::2], strict=True))
    return {_text(name): _text(value) for name, value in answer.items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
