"""What the configuration of a server can lose, in words."""

from collections.abc import Mapping
from typing import Any

from perdure.errors import StoreUnreachable
from perdure.stores.redis.server import Server

_ASKED = ("appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy", "min-replicas-to-write")


async def cautions(server: Server) -> list[str]:
    """One sentence for each thing that may be lost, empty where nothing is. Raises StoreUnreachable."""
    info = await _info(server)
    settings = await _settings(server)
    if settings is None:
        return [
            "The server doesn't tell its settings (CONFIG is forbidden): what it loses when it crashes can't be known; "
            "docs/redis.md says what to ask its provider.",
            *_replication(info, {}),
        ]
    return [*_persistence(settings, info), *_memory(settings), *_replication(info, settings)]


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


def _replication(info: Mapping[str, str], settings: Mapping[str, str]) -> list[str]:
    if info.get("role") == "slave":
        return ["The server is a replica: nothing can be written here."]
    on_cluster = info.get("cluster_enabled") == "1"
    if info.get("connected_slaves", "0") == "0" and not on_cluster:
        return []
    found = ["Replicas follow later: when one of them takes over, commits that it has not received are lost"]
    if settings.get("min-replicas-to-write") == "0":
        found[0] += ", and a primary that was cut off goes on taking commits (min-replicas-to-write is 0)"
    return [found[0] + "."]


async def _info(server: Server) -> dict[str, str]:
    return _fields(await server.ask("INFO"))


async def _settings(server: Server) -> dict[str, str] | None:
    """Settings; None where they are nobody's business."""
    try:
        found = await server.ask_all([("CONFIG", "GET", name) for name in _ASKED])
    except StoreUnreachable as error:
        if "NOPERM" in str(error) or "unknown command" in str(error).lower():
            return None
        raise
    return {name: value for answer in found for name, value in _fields(answer).items()}


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
