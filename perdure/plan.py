"""The plan of a dry run: whether what a model said there still holds where its calls have really been made.

It was said of answers that were recorded or simulated. Real ones differ from those at least in the names that are
minted for each call: of a reservation, of a charge. A plan that doesn't use such a name again doesn't depend on it;
whatever else has become different, nobody knows what the model would have made of that.
"""

import json
import re
from collections.abc import Iterator, Sequence

from perdure.canonical import Json, canonical
from perdure.message import Message

_WORD = re.compile(r"\w(?:[\w.,:+@/-]*\w)?")
# What has letters and digits and yet is no name: quantities and amounts (10kg, CHF12.50), and moments.
_AMOUNT = re.compile(r"[\d.,:+-]+[^\W\d_]{1,3}|[^\W\d_]{1,3}[\d.,]+|\d{4}-\d\d-\d\dT.*", re.DOTALL)


def still_holds(then: Sequence[Json], now: Sequence[Json], said: Message) -> bool:
    """Whether what was said of one conversation may be taken for what would be said of another.

    They may differ in minted names, word for word, and what was said must use none of those.
    """
    before, after = list(_words(then)), list(_words(now))
    if len(before) != len(after):
        return False
    changed = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    used = " ".join([said.content, *(_text(call.arguments) for call in said.tool_calls)])
    return all(_is_minted(other) and one not in used for one, other in changed)


def _words(value: Json) -> Iterator[str]:
    """The words of all texts in it, in their order; numbers are words too."""
    if isinstance(value, dict):
        for name in sorted(value):
            yield from _words(value[name])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _words(item)
    else:
        yield from _WORD.findall(value if isinstance(value, str) else canonical(value).decode())


def _is_minted(word: str) -> bool:
    letters, digits = any(map(str.isalpha, word)), any(map(str.isdigit, word))
    return letters and digits and not _AMOUNT.fullmatch(word)


def _text(arguments: str) -> str:
    """Arguments without escapes, which could hide a name; as they are where they aren't JSON."""
    try:
        return json.dumps(json.loads(arguments), ensure_ascii=False)
    except ValueError:
        return arguments
