"""The base of everything that is data: frozen, keyword-only, closed to unknown fields."""

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """An immutable record. Unknown fields are errors: a misspelt name must not pass as a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # most of them no process ever uses
