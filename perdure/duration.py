"""Durations as people write them: ``30s``, ``5m``, ``24h``, ``7d``."""

import math
import re
from datetime import timedelta

from perdure.errors import DefinitionError

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 100 * 365 * 86400  # a hundred years; what can't be told from for ever is a mistake
_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")

Duration = str | float | timedelta


def seconds(duration: Duration) -> float:
    """The duration in seconds, from ``"24h"``, a number of seconds, or a timedelta.

    Raises DefinitionError for anything else, and for a duration that isn't positive or longer than a hundred years.
    """
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, str):
        match = _FORM.fullmatch(duration.strip())
        if not match:
            raise DefinitionError(f"{duration!r} is no duration.", hint='Write it like "30s", "5m", "24h" or "7d".')
        value = float(match[1]) * _UNITS[match[2]]
    else:
        try:
            value = float(duration)
        except (TypeError, ValueError):
            value = math.nan
    if not 0 < value <= _LONGEST:
        raise DefinitionError(f"A duration must be longer than nothing and not for ever, not {duration!r}.")
    return value


def spoken(value: float) -> str:
    """Seconds as a person reads them: 90 -> ``1m 30s``; two units at the most."""
    parts: list[str] = []
    rest = int(value)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
