"""`perdure keys`: pairs for approvers, and whose signatures count."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure.security.signing import ApproverKeys, SigningKey
from perdure.starters.cli import run

Says = Callable[..., tuple[int, str, str]]


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Says:
    """Runs a command in a folder of its own: its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERDURE_APPROVER_KEYS", raising=False)

    def type_in(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return type_in


def documents(said: tuple[int, str, str]) -> Any:
    """What a command printed that went well and said nothing besides."""
    assert (said[0], said[2]) == (0, "")
    return json.loads(said[1])


def test_a_new_pair_signs_and_is_known(says: Says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `keys new` makes, `keys list` shows under the same fingerprint, and workers take its signatures."""
    pair = documents(says("keys", "new", "ann", "--out", "keys", "-o", "json"))
    private = tmp_path / pair["private_file"]
    assert private.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / pair["public_file"]).read_text().strip() == pair["line"]
    monkeypatch.setenv("PERDURE_APPROVER_KEYS", "keys")
    shown = [{"approver": "ann", "fingerprint": pair["fingerprint"]}]
    assert documents(says("keys", "list", "-o", "json")) == shown
    assert json.loads(says("keys", "list", "-o", "jsonl")[1]) == shown[0]
    assert pair["fingerprint"] in says("keys", "list")[1]
    ApproverKeys.load(tmp_path / "keys").check("ann", b"yes", SigningKey.load(private).sign(b"yes"))


def test_it_says_what_each_half_is_for_and_shows_no_private_one(says: Says, tmp_path: Path) -> None:
    """On standard error for a person; standard output is the two files."""
    code, out, err = says("keys", "new", "ann")
    assert (code, out.split()) == (0, ["ann.key", "ann.pub"])
    assert "whoever has it approves as ann" in err
    assert "PERDURE_APPROVER_KEYS" in err
    secret = (tmp_path / "ann.key").read_text().splitlines()[1]
    for said in (out + err, says("keys", "new", "bob", "-o", "json")[1]):
        assert "PRIVATE" not in said
        assert secret not in said


def test_nothing_is_overwritten(says: Says, tmp_path: Path) -> None:
    """A second pair of the same name is refused, with the first as it was; so is what can't be a name."""
    says("keys", "new", "ann")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code, out, err = says("keys", "new", "ann")
    assert (code, out) == (2, "")
    assert "not overwritten" in err
    assert says("keys", "new", "../ann")[0] == 2
    assert says("keys", "new", "bob", "--out", "ann.key")[0] == 2
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_the_setting_it_says_that_nothing_is_signed(
    says: Says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where the keys can't be read it says which line, not what is in it."""
    code, out, err = says("keys", "list")
    assert (code, out.strip(), "PERDURE_APPROVER_KEYS is not set" in err) == (0, "", True)
    assert documents(says("keys", "list", "-o", "json")) == []
    monkeypatch.setenv("PERDURE_APPROVER_KEYS", "keys")
    assert says("keys", "list")[0] == 2
    (tmp_path / "keys").write_text("# who\nann hunter2\n")
    code, out, err = says("keys", "list")
    assert (code, out, "keys: line 2" in err, "hunter2" in err) == (2, "", True, False)
