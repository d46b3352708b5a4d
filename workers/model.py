"""The model client of a worker, as the environment configures it."""

import os

from openai import AsyncOpenAI

KEY, ADDRESS = "OPENAI_API_KEY", "OPENAI_BASE_URL"
_NO_KEY = "none"  # a model of one's own behind OPENAI_BASE_URL often asks for no key, but the client does


def is_configured() -> bool:
    """Whether the environment names a model: ``OPENAI_API_KEY`` or ``OPENAI_BASE_URL`` is set."""
    return bool(os.environ.get(KEY) or os.environ.get(ADDRESS))


def model_client() -> AsyncOpenAI | None:
    """A client if a model is configured, without retries of its own: Temporal retries."""
    if not is_configured():
        return None
    return AsyncOpenAI(api_key=os.environ.get(KEY) or _NO_KEY, max_retries=0)
