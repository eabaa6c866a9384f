"""What a dialogue may keep in `session.data`, and what it is told when it may not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsd import Session
from smsd.conversation.session import MAX_DATA_BYTES
from smsd.errors import DataError

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values, max_size=4))
def test_a_json_object_comes_back_as_it_was(data: dict[str, Any]) -> None:
    session = Session(1)
    session.data = data
    packed = session.packed_data()
    assert Session(2, packed_data=packed).data == data
    assert json.loads(packed or b"{}") == data


def test_untouched_data_stays_byte_for_byte() -> None:
    packed = b'{"b": 1,   "a": 2}'
    assert Session(2, packed_data=packed).packed_data() == packed


def test_changed_in_place_it_is_kept() -> None:
    session = Session(2, packed_data=b'{"list":[1]}')
    session.data["list"].append(2)
    assert session.packed_data() == b'{"list":[1,2]}'


def test_emptied_it_takes_no_room() -> None:
    session = Session(2, packed_data=b'{"a":1}')
    session.data.clear()
    assert session.packed_data() == b""


class Unknown:
    pass


CIRCLE: dict[str, Any] = {}
CIRCLE["circle"] = CIRCLE


@pytest.mark.parametrize(
    "data",
    [
        [1],
        "text",
        None,
        7,
        {"a": Unknown()},
        {"a": {1, 2}.__iter__()},
        CIRCLE,
        {"a": "\ud800"},
        {1.5: Unknown()},
    ],
)
def test_data_that_is_not_a_json_object_is_an_error(data: Any) -> None:
    def keep() -> bytes:
        session = Session(1)
        session.data = data
        return session.packed_data()

    with pytest.raises(DataError, match="not a JSON object"):
        keep()


@pytest.mark.parametrize("limit", [400, MAX_DATA_BYTES])
def test_too_large_is_an_error_that_tells_sizes(limit: int) -> None:
    session = Session(1)
    session.data = {"a": "x" * (limit - 8)}
    assert len(session.packed_data(limit)) == limit
    session.data = {"a": "x" * (limit - 7)}
    with pytest.raises(DataError, match=f"{limit + 1} bytes of JSON; at most {limit} are allowed"):
        session.packed_data(limit)


def test_a_new_conversation_is_told_by_its_count() -> None:
    assert Session(1).is_new
    assert not Session(2).is_new
    session = Session(3)
    assert not session.ended
    session.end()
    assert session.ended
