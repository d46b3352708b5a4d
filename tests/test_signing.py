"""Signed decisions: whose word counts, and what of a decision is bound by a signature."""

import os
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perdure.approvals import CountedDecision, Decision, Verdict
from perdure.canonical import canonical
from perdure.errors import DecisionRefused, InvalidInput, UsageError
from perdure.security.signing import ApproverKeys, SigningKey, counted_statement, edit_digest, statement
from perdure.settings import Settings
from tests.properties import brief, texts, thorough, values

ANN = SigningKey.new("ann")
AT = "2026-01-01T12:00:00.000+00:00"
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
arguments = st.none() | st.dictionaries(texts, values, max_size=3)
says = st.fixed_dictionaries(
    {
        "thread": names, "verdict": st.sampled_from(["approve", "reject"]), "request_id": names, "approver": names,
        "digest": texts, "reason": texts, "at": texts, "arguments": arguments,
    }
)  # fmt: skip


def stated(said: dict[str, Any]) -> bytes:
    """The statement of what somebody says."""
    decision = Decision.model_validate({name: said[name] for name in said if name not in ("thread", "verdict")})
    return statement(said["thread"], said["verdict"], decision)


def refusal(keys: ApproverKeys, approver: str, said: bytes, signature: str) -> str:
    """The code with which a signature is refused."""
    with pytest.raises(DecisionRefused) as refused:
        keys.check(approver, said, signature)
    return refused.value.code


# ── what a signature binds ───────────────────────────────────────────────────────────────────────────────────────


@thorough
@given(says, says, st.data())
def test_every_field_is_signed(said: dict[str, Any], other: dict[str, Any], data: st.DataObject) -> None:
    """Whatever of a decision is changed, whose, for which thread or how it was meant: the signature is none then."""
    keys, signature = ApproverKeys.parse(ANN.line), ANN.sign(stated(said))
    keys.check("ann", stated(said), signature)
    changed = said | {name: other[name] for name in data.draw(st.sets(st.sampled_from(sorted(said)), min_size=1))}
    assume(canonical(changed) != canonical(said))
    assert refusal(keys, "ann", stated(changed), signature) == "forged"


@thorough
@given(says, st.sampled_from(["thread", "request_id", "digest", "reason", "at", "approver"]), st.data())
def test_every_byte_of_every_field_is_signed(said: dict[str, Any], name: str, data: st.DataObject) -> None:
    """One character more, less or other, at any place of any text, makes another statement."""
    text = said[name]
    at = data.draw(st.integers(0, len(text)))
    character = data.draw(st.characters(exclude_categories=["Cs"]))
    for changed in (
        text[:at] + character + text[at:],
        text[:at] + character + text[at + 1 :],
        text[:at] + text[at + 1 :],
    ):
        if changed != text and (changed or name != "approver"):
            assert stated(said | {name: changed}) != stated(said)


@thorough
@given(st.binary(max_size=80), st.integers(0, 10_000))
def test_every_bit_of_a_signature_counts(said: bytes, bit: int) -> None:
    """A signature with any bit changed, cut, padded, or the same one written otherwise, is none."""
    keys, signature = ApproverKeys.parse(ANN.line), ANN.sign(said)
    raw = bytearray(b64decode(signature))
    raw[bit // 8 % len(raw)] ^= 1 << bit % 8
    other_bits = {c: signature[:-3] + c + "==" for c in "BCDEFGHIJKLMNOPQRSTUVWXYZ" if c != signature[-3]}
    written = [b64encode(bytes(raw)).decode(), signature[:-4], signature + "AAAA", f" {signature}", signature + "\n"]
    for other in (*written, *other_bits.values(), "none", "ä"):
        assert refusal(keys, "ann", said, other) == "forged"


@brief
@given(says)
def test_what_is_kept_of_a_decision_can_be_verified_later(said: dict[str, Any]) -> None:
    """The record of a counted decision, without the arguments that it asked for, makes the same statement."""
    counted = CountedDecision(
        verdict=said["verdict"], approver=said["approver"], reason=said["reason"], at=AT, digest=said["digest"],
        signed_at=said["at"], edited="" if said["arguments"] is None else edit_digest(said["arguments"]),
    )  # fmt: skip
    assert counted_statement(said["thread"], said["request_id"], counted) == stated(said)


def test_a_statement_is_what_the_page_says() -> None:
    """So that others can write a signer: a line that says what it is, then canonical JSON."""
    decision = Decision(request_id="a1", approver="ann", digest="d" * 64, reason="fine", at=AT)
    verdict: Verdict = "approve"
    assert statement("order-17", verdict, decision).decode() == (
        'perdure decision 1\n{"approver":"ann","at":"2026-01-01T12:00:00.000+00:00","digest":"' + "d" * 64 + '",'
        '"edited":"","reason":"fine","request":"a1","thread":"order-17","verdict":"approve"}'
    )


# ── whose signature counts ───────────────────────────────────────────────────────────────────────────────────────


def test_nobody_signs_for_another() -> None:
    """No signature, an unknown name, and the key of somebody else: three reasons."""
    bob = SigningKey.new("bob")
    keys = ApproverKeys.parse(f"{ANN.line}\n{bob.line}")
    assert refusal(keys, "ann", b"yes", "") == "unsigned"
    assert refusal(keys, "eve", b"yes", ANN.sign(b"yes")) == "unknown_key"
    assert refusal(keys, "ann", b"yes", bob.sign(b"yes")) == "forged"
    assert refusal(keys, "Ann", b"yes", ANN.sign(b"yes")) == "unknown_key"
    keys.check("bob", b"yes", bob.sign(b"yes"))


def test_a_key_is_changed_without_a_moment_in_which_none_counts(tmp_path: Path) -> None:
    """Both count while both are there; the old one stops the moment it goes, without a restart."""
    new = SigningKey.new("ann")
    ANN.save(tmp_path)
    keys = ApproverKeys.load(tmp_path)
    assert refusal(keys, "ann", b"yes", new.sign(b"yes")) == "forged"
    (tmp_path / "ann-2.pub").write_text(f"{new.line}  # since May\n")
    for key in (ANN, new):
        keys.check("ann", b"yes", key.sign(b"yes"))
    assert keys.fingerprints() == {"ann": (new.fingerprint, ANN.fingerprint)}
    (tmp_path / "ann.pub").unlink()
    assert refusal(keys, "ann", b"yes", ANN.sign(b"yes")) == "forged"
    keys.check("ann", b"yes", new.sign(b"yes"))
    (tmp_path / "ann-2.pub").unlink()
    assert refusal(keys, "ann", b"yes", new.sign(b"yes")) == "unknown_key"


def test_a_key_that_is_put_in_the_place_of_another_counts_at_once(tmp_path: Path) -> None:
    """Also where the file has the same length and time as before."""
    file, bob = tmp_path / "keys", SigningKey.new("ann")
    file.write_text(ANN.line)
    keys, then = ApproverKeys.load(file), file.stat()
    file.write_text(bob.line)
    os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))
    keys.check("ann", b"yes", bob.sign(b"yes"))
    assert refusal(keys, "ann", b"yes", ANN.sign(b"yes")) == "forged"


def test_keys_that_are_spoilt_let_nobody_pass(tmp_path: Path) -> None:
    """While the file can't be read no signature counts, whatever it said before; when it can again, they do."""
    file = tmp_path / "keys"
    file.write_text(ANN.line)
    keys, signature = ApproverKeys.load(file), ANN.sign(b"yes")
    file.write_text(f"{ANN.line}\nnonsense")
    with pytest.raises(InvalidInput, match=r"keys: line 2 is no name with a public key"):
        keys.check("ann", b"yes", signature)
    file.unlink()
    with pytest.raises(UsageError, match="can't be read"):
        keys.check("ann", b"yes", signature)
    file.write_text(ANN.line)
    keys.check("ann", b"yes", signature)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────

good = ANN.line.split()[1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ann KEY\nbob", "Line 2 is no name with a public key"),
        ("# keys\n\nann SHORT", "Line 3 is no name with a public key"),
        ("ann KEY x", "Line 1 is no name with a public key"),
        ("KEY", "Line 1 is no name with a public key"),
        ("../ann KEY", "Line 1: the name is none"),
        ("ann KEY\nbob KEY", "Line 2: bob has the same key as ann; one person would be two"),
        ("-----BEGIN PRIVATE KEY-----\nsecret", "Line 1: this is the private half of a key"),
    ],
)
def test_wrong_lines_are_named_and_not_quoted(text: str, why: str) -> None:
    """The error says which line; never what it holds. (A key in the names of tests would be another each time.)"""
    with pytest.raises(InvalidInput, match=why) as refused:
        ApproverKeys.parse(text.replace("KEY", good).replace("SHORT", good[:-4]))
    assert all(part not in f"{refused.value!r} {refused.value}" for part in (good[:12], "secret"))


def test_comments_names_with_spaces_and_repeated_lines_are_fine() -> None:
    """A line is a name, then a key; the rest of it is a comment."""
    keys = ApproverKeys.parse(
        f"# who\n\n  ann \t{good} # the boss\nann {good}\nAnn B. Clark\t{SigningKey.new('x').line[2:]}"
    )
    assert {name: len(each) for name, each in keys.fingerprints().items()} == {"Ann B. Clark": 1, "ann": 1}
    assert ApproverKeys.parse("").fingerprints() == {}


def test_a_pair_is_written_once_and_read_back(tmp_path: Path) -> None:
    """The private half is its owner's alone; neither half is ever written over, also not through a link."""
    private, public = ANN.save(tmp_path / "new")
    assert (private.name, public.name) == ("ann.key", "ann.pub")
    assert private.stat().st_mode & 0o777 == 0o600
    assert public.read_text() == f"{ANN.line}\n"
    found = SigningKey.load(private)
    assert (found.name, found.line) == ("ann", ANN.line)
    ApproverKeys.load(public).check("ann", b"yes", found.sign(b"yes"))
    for gone, left in ((private, public), (public, private)):
        kept = gone.read_bytes(), left.read_bytes()
        gone.unlink()
        with pytest.raises(UsageError, match="has a key of ann already"):
            SigningKey.new("ann").save(tmp_path / "new")
        assert (left.read_bytes(), gone.exists()) == (kept[1], False)
        gone.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UsageError, match="has a key of ann already"):
            SigningKey.new("ann").save(tmp_path / "new")
        assert not (tmp_path / "elsewhere").exists()
        gone.unlink()
        gone.write_bytes(kept[0])
        gone.chmod(0o600)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_a_private_key_that_others_may_touch_is_not_used(tmp_path: Path, mode: int) -> None:
    """As ssh does it; also where the key is reached by a link."""
    private, _ = ANN.save(tmp_path)
    link = tmp_path / "link.key"
    link.symlink_to(private)
    assert SigningKey.load(link).line == f"link {good}"
    private.chmod(mode)
    for path in (private, link):
        with pytest.raises(UsageError, match=rf"Others may read or write.*mode {mode:04o}.*chmod 600"):
            SigningKey.load(path)


def test_what_is_no_private_key_is_refused_and_not_quoted(tmp_path: Path) -> None:
    """Not there, a folder, a link that leads nowhere or in a circle, the public half, another kind of key."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    _, public = ANN.save(tmp_path / "pair")
    public.chmod(0o600)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    other = tmp_path / "other.key"
    pem = X25519PrivateKey.generate().private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    locked = X25519PrivateKey.generate().private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"x")
    )
    for name in ("gone", "nowhere", "circle", "pair"):
        with pytest.raises(UsageError, match=r"can't be read"):
            SigningKey.load(tmp_path / name)
    for text, why in ((public.read_bytes(), "no private key"), (pem, "not of Ed25519"), (locked, "without a password")):
        other.write_bytes(text)
        other.chmod(0o600)
        with pytest.raises(UsageError, match=why) as refused:
            SigningKey.load(other)
        assert pem.splitlines()[1].decode() not in str(refused.value)


@pytest.mark.parametrize("name", ["", " ", "../ann", "a/b", "a\\b", ".ann", "-ann", "a#b", "ann\n", "a" * 201])
def test_a_name_that_is_no_file_or_no_line_gets_no_key(name: str) -> None:
    """A name can't lead out of the folder, hide in it, or be read as something else."""
    with pytest.raises(InvalidInput, match="can't be the name of a key"):
        SigningKey.new(name)


def test_keys_that_anybody_may_change_are_none(tmp_path: Path) -> None:
    """The file, the folder, or one file of the folder."""
    _, public = ANN.save(tmp_path / "keys")
    for path in (public, tmp_path / "keys"):
        before = path.stat().st_mode & 0o777
        path.chmod(before | 0o002)
        with pytest.raises(UsageError, match="Anybody may write to"):
            ApproverKeys.load(tmp_path / "keys")
        path.chmod(before)
    ApproverKeys.load(tmp_path / "keys").check("ann", b"yes", ANN.sign(b"yes"))


def test_keys_come_from_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PERDURE_APPROVER_KEYS names a file or a folder; set to nothing, it is not set."""
    assert Settings().approvers() is None
    monkeypatch.setenv("PERDURE_APPROVER_KEYS", "")
    assert Settings().approvers() is None
    monkeypatch.setenv("PERDURE_APPROVER_KEYS", str(tmp_path))
    found = Settings().approvers()
    assert found is not None
    assert found.fingerprints() == {}
    monkeypatch.setenv("PERDURE_APPROVER_KEYS", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="can't be read"):
        Settings().approvers()
