"""The work that everybody does: an agent loop, as data.

A step is one model call, which answers at once with one tool call of about 200 bytes, and that tool, which returns 500
bytes. After so many steps the model answers, and the turn ends. The conversation gets two messages a step.
"""

import json
from functools import cache
from random import Random

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
TOOL = "look"
ASKED = "Look until you have seen enough."
ANSWER = "That is all there was to see."


@cache
def _text(seed: str, size: int) -> str:
    """Characters that don't compress well, and are the same in every run."""
    return "".join(Random(seed).choices(ALPHABET, k=size))


def call_id(step: int) -> str:
    """As long as the ids that model servers mint."""
    return f"call_{_text(f'id {step}', 24)}"


def arguments(step: int) -> str:
    """What the model asks for at a step, counted from 0: JSON; with its id and the tool's name about 200 bytes."""
    return json.dumps({"step": step, "query": _text(f"query {step}", 130)})


def result(step: int) -> str:
    """What the tool returns: 500 characters."""
    return _text(f"result {step}", 500)


def payload(steps: int) -> int:
    """Bytes of the calls and the results of so many steps: what has to be kept, whoever keeps it."""
    return sum(
        len(call_id(step)) + len(TOOL) + len(arguments(step)) + len(call_id(step)) + len(result(step))
        for step in range(steps)
    )
