"""What properties have in common: how hypothesis runs them, and the JSON it makes up."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# Deterministic: a property that fails, fails for everybody. No deadline: the machine that runs the tests is busy.
thorough = settings(
    max_examples=150, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
brief = settings(thorough, max_examples=40)
few = settings(thorough, max_examples=15)  # each is some threads on a real server

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)  # UTF-8 has no lone surrogates
words = st.sampled_from(["a", "b", "c", "d"])
integers = st.integers(-3, 3) | st.integers(-(2**80), 2**80)
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | integers | floats | texts
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6
)
