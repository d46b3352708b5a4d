"""How a LangGraph thread and a namespace of it are called in our store.

The thread keeps its id where that is one of ours, and a namespace (of a subgraph) follows after ``::``::

    orders-17                       the thread orders-17
    orders-17::pay:0f9a…            its namespace pay:0f9a…
    bob.40example.2eorg             the thread bob@example.org

A byte that can't stand in an id is written as a dot and two hex digits. So different names never meet, and each can be
read back; but of a namespace too long for an id only the beginning and a digest stand there.
"""

import re

from perdure.canonical import digest
from perdure.errors import InvalidInput

MAX_NAME = 200  # characters of one of our thread ids
MAX_THREAD = 150  # of those, for the thread: 50 stay for "::" and a shortened namespace
_JOIN = "::"
_LEAD = "0.."  # before a name that begins with what no id begins with; a dot without two hex digits escapes nothing
_CUT = ".."  # between the beginning of a shortened namespace and its digest
_DIGEST = 32  # hex digits

_UNSAFE = re.compile(r"[^A-Za-z0-9_:-]|:(?=:)|:\Z")
_ESCAPED = re.compile(rb"\.([0-9a-f]{2})")


def stored_name(thread_id: str, namespace: str = "") -> str:
    """The id of our thread. Raises InvalidInput where the id of LangGraph's is too long for one."""
    thread = _escaped(thread_id)
    if not thread[:1].isalnum():
        thread = _LEAD + thread
    if len(thread) > MAX_THREAD:
        raise InvalidInput(
            f"The thread id {thread_id[:40]!r}… is too long.",
            hint=f"At most {MAX_THREAD} characters; each that is no letter, digit, '_', '-' or ':' counts as three.",
        )
    if not namespace:
        return thread
    room = MAX_NAME - len(thread) - len(_JOIN)
    return f"{thread}{_JOIN}{_shortened(_escaped(namespace), namespace, room)}"


def read_name(stored: str) -> tuple[str, str | None]:
    """Thread and namespace. None: the namespace doesn't stand in the id as a whole."""
    thread, _, namespace = stored.partition(_JOIN)
    read = _read(thread.removeprefix(_LEAD))
    return read, None if _CUT in namespace else _read(namespace)


def untold(thread_id: str, namespace: str) -> str:
    """The namespace where the id doesn't tell it; else nothing."""
    return namespace if read_name(stored_name(thread_id, namespace))[1] is None else ""


def of_namespaces(thread_id: str) -> str:
    """What the names of all namespaces of a thread begin with."""
    return stored_name(thread_id) + _JOIN


def _escaped(text: str) -> str:
    return _UNSAFE.sub(lambda found: "".join(f".{byte:02x}" for byte in found[0].encode()), text)


def _read(text: str) -> str:
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode()).decode()


def _shortened(escaped: str, namespace: str, room: int) -> str:
    if len(escaped) <= room:
        return escaped
    beginning = escaped[: room - _DIGEST - len(_CUT)].rstrip(".")
    return f"{beginning}{_CUT}{digest(namespace)[:_DIGEST]}"
