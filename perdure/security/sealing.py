from typing import Any


def unseal(values: Any, keyring: Any) -> Any:
    return values


def redact(values: Any) -> Any:
    return values
