"""Signed decisions: what is signed, the key that signs it, and the keys of those whose word counts (Ed25519)."""

import base64
import hashlib
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from perdure.approvals import CountedDecision, Decision, Verdict
from perdure.canonical import Json, canonical, digest
from perdure.errors import DecisionRefused, InvalidInput, UsageError

_DOMAIN = b"perdure decision 1\n"  # what is signed for anything else begins otherwise
_NAME = re.compile(r"\w[\w.@+ -]{0,198}\w|\w")  # names a file, and stands on a line before a key
_LINE = "A line is NAME BASE64, as `perdure keys new` writes it into NAME.pub."


# ── what is signed ───────────────────────────────────────────────────────────────────────────────────────────────


def statement(thread_id: str, verdict: Verdict, decision: Decision) -> bytes:
    """The bytes that an approver signs. Raises InvalidInput for arguments that are no JSON."""
    edited = "" if decision.arguments is None else edit_digest(decision.arguments)
    return _stated(
        thread=thread_id, request=decision.request_id, digest=decision.digest, verdict=verdict,
        approver=decision.approver, at=decision.at, reason=decision.reason, edited=edited,
    )  # fmt: skip


def counted_statement(thread_id: str, request_id: str, counted: CountedDecision) -> bytes:
    """The same bytes, from what is kept of a decision that has counted."""
    return _stated(
        thread=thread_id, request=request_id, digest=counted.digest, verdict=counted.verdict,
        approver=counted.approver, at=counted.signed_at, reason=counted.reason, edited=counted.edited,
    )  # fmt: skip


def edit_digest(arguments: Mapping[str, Json]) -> str:
    """Names the arguments that a person asks for, as that person wrote them. Raises InvalidInput."""
    return digest(canonical(dict(arguments)))


def _stated(**fields: str) -> bytes:
    return _DOMAIN + canonical(fields)


# ── the key of an approver ───────────────────────────────────────────────────────────────────────────────────────


class SigningKey:
    """A private key, and the name of the approver whose it is."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        """Raises InvalidInput for a name that can't stand in a file of keys."""
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"{name!r} can't be the name of a key.",
                hint="Letters, digits, and between them spaces and '.', '_', '@', '+', '-'; up to 200.",
            )
        self.name = name
        self._key = key

    @staticmethod
    def new(name: str) -> "SigningKey":
        """A new random key. Raises InvalidInput."""
        return SigningKey(name, Ed25519PrivateKey.generate())

    @staticmethod
    def load(path: Path) -> "SigningKey":
        """The key in a file, under the file's name. Raises UsageError: it can't be read, others may read it, or it is
        no private key."""
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(_LONGEST) if stat.S_ISREG(mode) else b""
        except OSError as error:
            raise UsageError(f"The key {path} can't be read: {error.strerror}.") from error
        if mode & 0o077:
            raise UsageError(
                f"Others may read or write the key {path} (mode {stat.S_IMODE(mode):04o}).",
                hint=f"`chmod 600 {path}`; where others have read it already, make a new one.",
            )
        try:
            key = load_pem_private_key(text, password=None)
        except (ValueError, TypeError) as error:  # TypeError: it is encrypted
            raise UsageError(f"{path} is no private key in PEM form without a password.") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"{path} is a private key, but not of Ed25519.", hint="`perdure keys new` makes one.")
        return SigningKey(path.stem, key)

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write ``NAME.key``, for its owner alone, and ``NAME.pub``; where they are now.

        Raises UsageError: there is such a file already, or the folder can't be written to. Nothing is overwritten.
        """
        private, public = folder / f"{self.name}.key", folder / f"{self.name}.pub"
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(public):  # before there is half a pair
                raise FileExistsError(f"{public} is there")
            with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(pem)
            with public.open("x", encoding="utf-8") as lines:
                lines.write(f"{self.line}\n")
        except FileExistsError as error:
            raise UsageError(
                f"{folder} has a key of {self.name} already, and it is not overwritten.",
                hint="Write the new one to another folder (--out DIR).",
            ) from error
        except OSError as error:
            raise UsageError(f"The key can't be written to {folder}: {error.strerror}.") from error
        return private, public

    @property
    def line(self) -> str:
        """The public half, as ``ApproverKeys`` reads it."""
        return f"{self.name} {base64.b64encode(self._key.public_key().public_bytes_raw()).decode()}"

    @property
    def fingerprint(self) -> str:
        """The public half in short."""
        return _fingerprint(self._key.public_key())

    def sign(self, stated: bytes) -> str:
        """A signature over a statement, in base64."""
        return base64.b64encode(self._key.sign(stated)).decode()


_LONGEST = 65_536  # bytes of a private key's file; it has a hundred


def _fingerprint(key: Ed25519PublicKey) -> str:
    """As OpenSSH writes one."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.public_bytes_raw()).digest()).decode().rstrip("=")


# ── the keys of all approvers ────────────────────────────────────────────────────────────────────────────────────

_Keys = dict[str, list[Ed25519PublicKey]]


class ApproverKeys:
    """Public keys by approver. A name may have several: for a while after a new one has come, both count."""

    def __init__(self, read: Callable[[], dict[str, str]]) -> None:
        """``read`` gives lines of keys by the place where they stand. Raises InvalidInput, and what ``read`` raises."""
        self._read = read
        self._text: dict[str, str] = {}
        self._keys: _Keys = {}
        self._now()

    @staticmethod
    def parse(text: str) -> "ApproverKeys":
        """Lines ``NAME BASE64``; what follows a ``#`` is a comment. Raises InvalidInput that names the line."""
        return ApproverKeys(lambda: {"": text})

    @staticmethod
    def load(path: Path) -> "ApproverKeys":
        """The keys in a file, or in all ``*.pub`` of a folder, as they are whenever one is asked for.

        Raises InvalidInput that names file and line, and UsageError: it can't be read, or anybody may write to it.
        """
        return ApproverKeys(lambda: _lines(path))

    def check(self, approver: str, stated: bytes, signature: str) -> None:
        """Raise DecisionRefused unless the signature over the statement is that of one of the approver's keys.

        Raises InvalidInput and UsageError as ``load`` does, where the keys have been spoilt since.
        """
        if not signature:
            raise DecisionRefused(f"The decision of {approver} is not signed.", code="unsigned")
        keys = self._now().get(approver, [])
        if not keys:
            raise DecisionRefused(f"{approver} has no key whose signature counts.", code="unknown_key")
        signed = _signature(signature)
        if not any(_fits(key, signed, stated) for key in keys):
            raise DecisionRefused(f"This is not a signature of {approver} under this decision.", code="forged")

    def fingerprints(self) -> dict[str, tuple[str, ...]]:
        """The keys in short, by approver. Raises InvalidInput, UsageError."""
        return {name: tuple(map(_fingerprint, keys)) for name, keys in sorted(self._now().items())}

    def _now(self) -> _Keys:
        text = self._read()  # each time: a withdrawn key must not count for as long as a clock takes to tick
        if text != self._text:
            self._keys = _parsed(text)
            self._text = text
        return self._keys


def _lines(path: Path) -> dict[str, str]:
    try:
        _require_ours(path)
        if not path.is_dir():
            return {str(path): path.read_text("utf-8")}
        files = sorted(path.glob("*.pub"))
        for file in files:
            _require_ours(file)
        return {str(file): file.read_text("utf-8") for file in files}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The keys of approvers can't be read: {error}.") from error


def _require_ours(path: Path) -> None:
    if path.stat().st_mode & stat.S_IWOTH:
        raise UsageError(f"Anybody may write to {path}, and so be any approver.", hint=f"`chmod o-w {path}`.")


def _parsed(text: Mapping[str, str]) -> _Keys:
    keys: _Keys = {}
    owners: dict[bytes, str] = {}
    for place, lines in text.items():
        for number, line in enumerate(lines.splitlines(), 1):
            entry = line.partition("#")[0].strip()
            if not entry:
                continue
            where = f"{place}: line {number}" if place else f"Line {number}"
            name, key = _entry(entry, where)
            raw = key.public_bytes_raw()
            if owners.setdefault(raw, name) != name:
                raise InvalidInput(f"{where}: {name} has the same key as {owners[raw]}; one person would be two.")
            if raw not in [known.public_bytes_raw() for known in keys.get(name, [])]:
                keys.setdefault(name, []).append(key)
    return keys


def _entry(entry: str, where: str) -> tuple[str, Ed25519PublicKey]:
    if "PRIVATE" in entry:
        raise InvalidInput(f"{where}: this is the private half of a key.", hint="Remove it, and make a new key.")
    name, *encoded = entry.rsplit(maxsplit=1)
    try:
        key = Ed25519PublicKey.from_public_bytes(_decoded("".join(encoded)))
    except ValueError as error:
        raise InvalidInput(f"{where} is no name with a public key.", hint=_LINE) from error
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{where}: the name is none that a key can have.", hint=_LINE)
    return name, key


def _decoded(text: str) -> bytes:
    """Raises ValueError. There is one way only to write the same bytes: or a signature, written otherwise, would pass
    for one that has not been used yet."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not written as it should be")
    return data


def _signature(text: str) -> bytes:
    try:
        return _decoded(text)
    except ValueError:
        return b""


def _fits(key: Ed25519PublicKey, signature: bytes, stated: bytes) -> bool:
    try:
        key.verify(signature, stated)
    except InvalidSignature:
        return False
    return True
