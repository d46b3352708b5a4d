"""The data converter that every client and worker of Perdure uses."""

from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter, PayloadConverter, SerializationContext

from perdure.contracts.base import is_lean

_JSON = {"encoding": b"json/plain"}


class _Converter(PayloadConverter):
    """Pydantic JSON with two differences. What is ``Lean`` is written so. And where no type is asked for, a payload
    that can't be read stays a RawValue: the SDK drops a signal whose payload doesn't decode, with a log line; we want
    its handler to see it, refuse it and keep the refusal where people look.

    It holds nothing, because the SDK makes a new one for every workflow task and every activity: what pydantic's own
    converter prepares is prepared once for all of them.
    """

    def to_payloads(self, values: Sequence[Any]) -> list[Payload]:
        """See base class."""
        return [self._write(value) for value in values]

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[Any] | None = None) -> list[Any]:
        """See base class."""
        if type_hints is None:
            return [_read(payload) for payload in payloads]
        return [_typed(payload, hint) for payload, hint in zip(payloads, type_hints, strict=False)]

    def _write(self, value: Any) -> Payload:
        if is_lean(value):
            return Payload(metadata=_JSON, data=value.json())
        return _PLAIN.to_payloads([value])[0]


def _typed(payload: Payload, hint: Any) -> Any:
    is_json = payload.metadata.get("encoding") == _JSON["encoding"]
    if is_json and isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint.__pydantic_validator__.validate_json(payload.data)
    return _PLAIN.from_payloads([payload], [hint])[0]


def _read(payload: Payload) -> Any:
    try:
        return _PLAIN.from_payloads([payload])[0]
    except Exception:  # whatever a converter makes of foreign bytes
        return RawValue(payload)


class _DataConverter(DataConverter):
    """The same for every workflow and every activity: the SDK asks several times in each task."""

    def with_context(self, context: SerializationContext) -> Self:
        """See base class."""
        return self


_PLAIN = PydanticPayloadConverter()
data_converter: DataConverter = _DataConverter(payload_converter_class=_Converter)
