"""Waiting for something: how late it is seen, and how many looks that takes."""

from itertools import accumulate, repeat, takewhile

from hypothesis import given
from hypothesis import strategies as st

from perdure.starters.patience import pause_after


@given(st.floats(min_value=0, max_value=1e6))
def test_what_happens_is_seen_in_proportion(waited: float) -> None:
    """A pause is half of the time waited, but never under 50 milliseconds and never over a second."""
    assert 0.05 <= pause_after(waited) <= max(0.05, min(waited / 1.999, 1.0))


def test_a_wait_costs_few_looks() -> None:
    """Two seconds cost ten looks, a minute less than seventy, and each further minute sixty."""
    times = accumulate(repeat(0.0), lambda waited, _: waited + pause_after(waited))
    looks = list(takewhile(lambda waited: waited < 600, times))
    assert len([look for look in looks if look < 2]) == 10
    assert len([look for look in looks if look < 60]) < 70
    assert len([look for look in looks if 540 <= look < 600]) == 60
