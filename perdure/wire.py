"""The data converter that every client and worker of Perdure uses."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import DataConverter


class _Converter(PydanticPayloadConverter):
    """Pydantic JSON with one difference: where no type is asked for, a payload that can't be read stays a RawValue.

    The SDK drops a signal whose payload doesn't decode, with a log line; we want its handler to see it, refuse it
    and keep the refusal where people look.
    """

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """See base class."""
        if type_hints is not None:
            return super().from_payloads(payloads, type_hints)
        return [self._read(payload) for payload in payloads]

    def _read(self, payload: Payload) -> Any:
        try:
            return super().from_payloads([payload])[0]
        except Exception:  # whatever a converter makes of foreign bytes
            return RawValue(payload)


data_converter: DataConverter = replace(pydantic_data_converter, payload_converter_class=_Converter)
