"""Ids of threads, as people give them."""

import re

from perdure.contracts import THREAD_ID
from perdure.errors import InvalidInput


def checked_id(thread_id: str) -> str:
    """The thread id. Raises InvalidInput if it can't be one."""
    if not re.fullmatch(THREAD_ID, thread_id):
        raise InvalidInput(
            f"{thread_id!r} is no thread id.",
            hint="Letters, digits and . _ : - are allowed, up to 200, beginning with a letter or digit.",
        )
    return thread_id
