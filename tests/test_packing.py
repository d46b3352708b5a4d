"""What a store makes of bytes and of statements before a database gets them."""

import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.canonical import canonical
from perdure.stores.packing import packed, unpacked
from perdure.stores.queries import for_postgres, listed
from tests.threads import noise

SAID = st.text(max_size=400).map(lambda text: canonical({"messages": {"op": "messages", "put": [{"content": text}]}}))


@given(st.one_of(st.binary(max_size=2_000), SAID, st.binary(max_size=9).map(lambda part: part * 500)))
def test_bytes_come_back(data: bytes) -> None:
    """Whatever they are; and they never take more than one byte more."""
    assert unpacked(packed(data)) == data
    assert len(packed(data)) <= len(data) + 1


@given(SAID.filter(lambda said: packed(said)[:1] == b"z"), st.data())
def test_bytes_that_are_not_all_there_are_noticed(said: bytes, chance: st.DataObject) -> None:
    """Cut short, continued, or with a byte changed behind the mark: what can be read all the same is what was said."""
    stored = packed(said)
    place = chance.draw(st.integers(1, len(stored) - 1))
    changed = stored[:place] + bytes([stored[place] ^ chance.draw(st.integers(1, 255))]) + stored[place + 1 :]
    for wrong in (stored[:place], stored + b"\0"):
        with pytest.raises(zlib.error):
            unpacked(wrong)
    with suppress(zlib.error):
        assert unpacked(changed) == said


def test_what_every_message_says_takes_next_to_no_room() -> None:
    """A message of characters that hardly compress takes little more than those."""
    said, call = noise(200), noise(24)
    message = {"content": said, "id": "17.0", "role": "tool", "tool_call_id": f"call_{call}"}
    whole = canonical({"messages": {"op": "messages", "put": [message]}})
    assert len(packed(whole)) < len(said + call) + 32 < len(whole) - 50


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("SELECT :a, :b_2 WHERE x = :a", "SELECT %(a)s, %(b_2)s WHERE x = %(a)s"),
        ("DELETE FROM t WHERE key IN :keys AND n = :n", "DELETE FROM t WHERE key = ANY(%(keys)s) AND n = %(n)s"),
        ("SELECT x::text, ':no', '100%' WHERE n % 2 = :n", "SELECT x::text, ':no', '100%%' WHERE n %% 2 = %(n)s"),
    ],
)
def test_values_are_named_as_psycopg_names_them(written: str, sent: str) -> None:
    """But not casts, nor what stands in a text."""
    assert for_postgres(written) == sent


def test_a_list_is_written_out_for_sqlite() -> None:
    """As many values as there are."""
    assert listed("DELETE FROM t WHERE key IN :keys", 2) == "DELETE FROM t WHERE key IN (:key0,:key1)"
