"""Keys: what they open and what they don't, how they are read, and that they are never quoted."""

from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure.errors import IntegrityError, InvalidInput, UsageError
from perdure.security.keyring import Keyring, new_key
from perdure.security.sealing import SEALED, unseal
from perdure.settings import Settings


@pytest.mark.parametrize(
    "spoil", [lambda token: token[:-6] + "AAAA" + token[-2:], lambda token: token[:20], lambda _: 3]
)
def test_what_was_changed_is_not_opened(spoil: Callable[[str], Any]) -> None:
    """A sealed value proves itself: changed, cut, or no sealed value at all."""
    token = Keyring.parse(f"a:{b64encode(bytes(32)).decode()}").seal("x", salt="")
    with pytest.raises(IntegrityError):
        unseal({"name": {SEALED: spoil(token)}}, Keyring.parse(f"a:{b64encode(bytes(32)).decode()}"))


def test_another_key_under_the_same_id_opens_nothing() -> None:
    """The error says which key, and what may be wrong."""
    ours, theirs = (Keyring({"a": bytes([number]) * 32}) for number in range(2))
    with pytest.raises(IntegrityError, match=r"key 'a' can't be opened.*another key has this id"):
        ours.open(theirs.seal("x", salt=""))


def test_the_same_value_is_not_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long conversation costs its new messages; what is kept for that is bounded."""
    ring, calls = Keyring.parse(new_key()), list[str]()
    tokens = [ring.seal("x" * 1_000, salt=str(number)) for number in range(10)]
    decrypted = ring._decrypted

    def counted(token: str) -> Any:
        calls.append(token)
        return decrypted(token)

    monkeypatch.setattr(ring, "_decrypted", counted)
    for token in [*tokens, *tokens]:
        assert ring.open(token) == "x" * 1_000
    assert calls == tokens
    monkeypatch.setattr("perdure.security.keyring._CACHED", 3 * len(tokens[0]))
    for token in [*tokens, *tokens[-3:]]:
        ring.open(token)
    ring.open(new := ring.seal("new", salt=""))
    assert calls == [*tokens, new]
    assert len(ring._opened) < 5


def test_keys_are_read_as_they_are_written() -> None:
    """One after the other or line by line; the first is the current one. A new one fits as it is."""
    one, two = new_key(), new_key()
    for text in (f"{one},{two}", f"{one}\n{two}\n", f" {one} , {two} "):
        assert Keyring.parse(text).current == one.partition(":")[0]
    raw = bytes(range(223, 255))
    token = Keyring({"a": raw}).seal("x", salt="")
    assert Keyring.parse(f"a:{b64encode(raw, altchars=b'-_').decode()}").open(token) == "x"


good = b64encode(b"k" * 32).decode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "There are no keys"),
        (good, "Key number 1 can't be read"),
        (f"a:{good},b", "Key number 2 can't be read"),
        (f"a:{good[:-1]}", "Key number 1 can't be read"),
        (f"a:{good}!", "Key number 1 can't be read"),
        ("a:" + b64encode(b"k" * 31).decode(), "Key 'a' has 31 bytes, not 32"),
        (f"{good}:{good}", "no id"),
        (f"a b:{good}", "Key number 1 can't be read"),
        (f"a:{good},a:{good}", "Two keys have the id 'a'"),
    ],
)
def test_wrong_keys_are_refused_and_not_quoted(text: str, why: str) -> None:
    """The error tells which one is wrong and never what it is."""
    with pytest.raises(InvalidInput, match=why) as refused:
        Keyring.parse(text)
    assert good[:20] not in f"{refused.value!r} {refused.value}"


def test_keys_come_from_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From PERDURE_KEYS or from a file; not from both. Printing the settings doesn't print them."""
    assert Settings().keyring() is None
    one, file = new_key(), tmp_path / "keys"
    monkeypatch.setenv("PERDURE_KEYS", one)
    found = Settings().keyring()
    assert found is not None
    assert found.current == one.partition(":")[0]
    assert one.partition(":")[2] not in f"{Settings()!r} {found!r} {vars(found)}"
    monkeypatch.setenv("PERDURE_KEYS_FILE", str(file))
    with pytest.raises(UsageError, match="Both PERDURE_KEYS and PERDURE_KEYS_FILE"):
        Settings().keyring()
    monkeypatch.delenv("PERDURE_KEYS")
    with pytest.raises(UsageError, match="can't be read"):
        Settings().keyring()
    file.write_text(f"{new_key()}\n{one}\n")
    found = Settings().keyring()
    assert found is not None
    assert found.open(Keyring.parse(one).seal(1, salt="")) == 1
    file.write_text("nonsense")
    with pytest.raises(InvalidInput, match="PERDURE_KEYS: Key number 1"):
        Settings().keyring()
