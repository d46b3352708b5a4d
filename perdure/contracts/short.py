"""Short forms of what every step's history holds: an id, a digest, a usage. Bytes of a history are kept for ever.

In Python they are what they always are; only their JSON is shorter, and the long one is read too.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from perdure.budget import Usage
from perdure.checkpoint import Ref

SHORT = 16  # hex digits of a digest that is checked or looked up, where nobody gains from making another like it
_ONCE = [1, 0, 0]  # calls, cached, saved of an ordinary call


def _short_ref(ref: Ref) -> str:
    return f"{ref.step}.{ref.id}.{ref.digest[:SHORT]}"


def _long_ref(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    step, _, rest = given.partition(".")
    id, _, digest = rest.rpartition(".")
    return {"id": id, "step": step, "digest": digest}


def _short_usage(usage: Usage) -> list[int]:
    """Of an ordinary call, which was made once and not cached, only its tokens."""
    tokens = [usage.prompt, usage.completion]
    rest = [usage.calls, usage.cached, usage.saved]
    return tokens if rest == _ONCE else tokens + rest


def _long_usage(given: Any) -> Any:
    if not isinstance(given, list):
        return given
    names = ("prompt", "completion", "calls", "cached", "saved")
    return dict(zip(names, [*given, *_ONCE], strict=False))


ShortRef = Annotated[Ref, PlainSerializer(_short_ref, when_used="json"), BeforeValidator(_long_ref)]
"""A checkpoint on which one builds: ``STEP.ID.DIGEST``; what is read has only the beginning of the digest."""
ShortDigest = Annotated[str, PlainSerializer(lambda digest: digest[:SHORT], when_used="json")]
"""The digest of a definition; what is read is its beginning, by which a worker finds it (``Runtime.definition``)."""
ShortUsage = Annotated[Usage, PlainSerializer(_short_usage, when_used="json"), BeforeValidator(_long_usage)]
"""What a model call used: prompt and completion tokens; then calls, cached and saved, unless 1, 0 and 0."""
