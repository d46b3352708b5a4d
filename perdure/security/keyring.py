"""Keys: what seals sensitive values (AES-256-GCM), and their rotation by id."""

import binascii
import hmac
import json
import re
import secrets
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from perdure.canonical import Json, canonical
from perdure.errors import IntegrityError, InvalidInput, KeyMissing

_KEY = 32  # bytes
_NONCE = 12  # bytes, as GCM wants it
_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_CACHED = 16 * 2**20  # characters of sealed text whose values are kept: a long conversation isn't opened at each step
_FORM = "ID:BASE64,… with keys of 32 bytes; `perdure db keys new` makes one."


class Keyring:
    """Keys by id. The first one seals, all of them open: so a new one is put in front, and the old ones stay."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Raises InvalidInput for an id or a key that can't be one; the message never holds a key."""
        if not keys:
            raise InvalidInput("There are no keys.", hint=_FORM)
        for name, key in keys.items():
            if not _ID.fullmatch(name):
                raise InvalidInput("The id of a key is no id.", hint="Letters, digits, '_', '.' and '-', up to 32.")
            if len(key) != _KEY:
                raise InvalidInput(f"Key {name!r} has {len(key)} bytes, not {_KEY}.", hint=_FORM)
        self.current = next(iter(keys))
        self._ciphers = {name: AESGCM(key) for name, key in keys.items()}
        self._nonces = hmac.digest(keys[self.current], b"perdure: nonces", "sha256")
        self._opened: OrderedDict[str, Json] = OrderedDict()
        self._size = 0

    @staticmethod
    def parse(text: str) -> "Keyring":
        """Keys as PERDURE_KEYS has them, the current one first: ``ID:BASE64,ID:BASE64``; lines will do too.

        Raises InvalidInput.
        """
        keys: dict[str, bytes] = {}
        for number, part in enumerate(filter(None, re.split(r"[,\s]+", text)), 1):
            name, colon, encoded = part.partition(":")
            try:
                key = b64decode(encoded.replace("-", "+").replace("_", "/"), validate=True)
            except binascii.Error:
                key = b""
            if not colon or not key:
                raise InvalidInput(f"Key number {number} can't be read.", hint=_FORM)
            if name in keys:
                raise InvalidInput(f"Two keys have the id {name!r}.")
            keys[name] = key
        return Keyring(keys)

    def seal(self, value: Json, *, salt: str) -> str:
        """A JSON value, sealed with the current key.

        The nonce is made from salt and value, so the same comes out the same, and no nonce ever serves two values.
        """
        plain = canonical(value)
        nonce = hmac.digest(self._nonces, canonical([salt]) + plain, "sha256")[:_NONCE]
        sealed = nonce + self._ciphers[self.current].encrypt(nonce, plain, None)
        return f"{self.current}:{b64encode(sealed).decode()}"

    def open(self, token: str) -> Json:
        """The value that was sealed; it may be shared, so nobody may change it. Raises KeyMissing, IntegrityError."""
        if token in self._opened:
            self._opened.move_to_end(token)
            return self._opened[token]
        value = self._decrypted(token)
        self._opened[token] = value
        self._size += len(token)
        while self._size > _CACHED and len(self._opened) > 1:
            self._size -= len(self._opened.popitem(last=False)[0])
        return value

    def _decrypted(self, token: str) -> Json:
        name, _, encoded = token.partition(":")
        if name not in self._ciphers:
            raise KeyMissing(
                f"A value is sealed with key {name!r:.40}, and PERDURE_KEYS doesn't have it.",
                hint="Put it back behind the current one: old keys are needed as long as anything is sealed with them.",
            )
        try:
            sealed = b64decode(encoded, validate=True)
            return json.loads(self._ciphers[name].decrypt(sealed[:_NONCE], sealed[_NONCE:], None))
        except (InvalidTag, ValueError) as error:
            raise IntegrityError(
                f"A value that was sealed with key {name!r} can't be opened.",
                hint="Either it was changed, or another key has this id now.",
            ) from error


def new_key() -> str:
    """A new random key under a new id, as PERDURE_KEYS takes it."""
    return f"k{secrets.token_hex(3)}:{b64encode(secrets.token_bytes(_KEY)).decode()}"
