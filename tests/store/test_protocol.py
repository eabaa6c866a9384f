"""Answers in pieces, answers that are none, and pymemcache's client as the judge of
both directions.
"""

import socket
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsd.store import pipeline
from smsd.store.pipeline import Answers, Incomplete, Loaded, ProtocolError, Refused, Token
from tests.processes import Memcached, wait_for

STALE = b"999999"
"""A token that this memcached has not reached."""

UNKNOWN = Token(7, pipeline.UNKNOWN_CAS)

GETS = b"VALUE smsd:k 0 12 7\r\nEND\r\nSTORED\r\r\nEND\r\n"


@pytest.fixture(scope="module")
def memcached() -> Iterator[Memcached]:
    with Memcached() as made:
        yield made


def all_pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    for begin, end in pairwise(sorted({0, len(data), *(cut % len(data) for cut in cuts)})):
        yield data[begin:end]


@given(st.lists(st.integers(0, 200)))
def test_answers_may_arrive_in_any_pieces(cuts: list[int]) -> None:
    readers: list[Callable[[Answers], object]] = [
        Answers.read_value,
        Answers.read_saved,
        Answers.read_value,
        Answers.read_saved,
        Answers.read_saved,
    ]
    data = GETS + b"STORED\r\n" + b"END\r\n" + b"HD c42\r\n" + b"SERVER_ERROR out of memory\r\n"
    answers, found = Answers(7), []
    for piece in all_pieces(data, cuts):
        answers.feed(piece)
        try:
            while readers:
                found.append(readers[0](answers))
                readers.pop(0)
        except Incomplete:
            continue
    assert found == [
        Loaded(b"END\r\nSTORED\r", Token(7, b"7")),
        UNKNOWN,
        Loaded(None, None),
        Token(7, b"42"),
        Refused(is_full=True),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"STORED", UNKNOWN),
        (b"HD", UNKNOWN),
        (b"HD c12", Token(7, b"12")),
        (b"EXISTS", None),
        (b"NOT_FOUND", None),
        (b"NOT_STORED", None),
        (b"EX c0", None),
        (b"NF", None),
        (b"NS c0", None),
        (b"SERVER_ERROR out of memory storing object", Refused(is_full=True)),
        (b"SERVER_ERROR object too large for cache", Refused(is_full=False)),
        (b"CLIENT_ERROR bad data chunk", Refused(is_full=False)),
    ],
)
def test_answers_to_writes(line: bytes, expected: object) -> None:
    answers = Answers(7)
    answers.feed(line + b"\r\n")
    assert answers.read_saved() == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"VERSION 1.6.18", (1, 6, 18)),
        (b"VERSION 1.6.9_beta", (1, 6, 9)),
        (b"VERSION 1.4", (1, 4)),
        (b"VERSION unknown", ()),
        (b"ERROR", ()),
    ],
)
def test_version_is_read(line: bytes, expected: tuple[int, ...]) -> None:
    answers = Answers(7)
    answers.feed(line + b"\r\n")
    assert answers.read_version() == expected


def test_value_of_another_key_is_no_answer() -> None:
    answers = Answers(7)
    answers.feed(b"VALUE k 0 1 9\r\na\r\nEND\r\n" * 2)
    assert answers.read_value(b"k") == Loaded(b"a", Token(7, b"9"))
    with pytest.raises(ProtocolError):
        answers.read_value(b"another")


def test_refused_read_keeps_the_connection_usable() -> None:
    answers = Answers(7)
    answers.feed(b"SERVER_ERROR out of memory writing get response\r\nEND\r\n")
    assert answers.read_value() == Refused(is_full=False)
    assert answers.read_value() == Loaded(None, None)


@pytest.mark.parametrize(
    "data",
    [
        b"VALUE k 0 x 1\r\n",
        b"VALUE k 0 -1 1\r\n",
        b"VALUE k 0 1\r\n",
        b"NONSENSE\r\n",
        b"\r\n",
        b"VALUE k 0 2 1\r\nabc\r\nEND\r\n",
        b"x" * (pipeline.MAX_LINE_BYTES + 1),
    ],
)
def test_malformed_answer_to_a_read_is_an_error(data: bytes) -> None:
    answers = Answers(7)
    answers.feed(data)
    with pytest.raises(ProtocolError):
        answers.read_value()


@pytest.mark.parametrize(
    "data", [b"OK\r\n", b"ERROR\r\n", b"\r\n", b"END\r\n", b"VALUE k 0 1 1\r\n"]
)
def test_malformed_answer_to_a_write_is_an_error(data: bytes) -> None:
    answers = Answers(7)
    answers.feed(data)
    with pytest.raises(ProtocolError):
        answers.read_saved()


class Talk:
    """A plain socket to memcached, and our reader."""

    def __init__(self, memcached: Memcached) -> None:
        self.sock = socket.create_connection((memcached.host, memcached.port), timeout=10)
        self.answers = Answers(7)

    def ask(self, command: bytes, read: Callable[[Answers], object]) -> object:
        self.sock.sendall(command)
        while True:
            try:
                return read(self.answers)
            except Incomplete:
                self.answers.feed(self.sock.recv(7))


@pytest.mark.parametrize("value", [b"", b"\r\n", b"END\r\n", bytes(range(256)) * 400], ids=len)
def test_pymemcache_agrees_in_both_directions(memcached: Memcached, value: bytes) -> None:
    client, talk = memcached.client(), Talk(memcached)
    with talk.sock:
        for again in (False, True):
            command = partial(pipeline.save_command, again=again)
            client.delete("k")
            assert talk.ask(pipeline.load_command(b"k"), Answers.read_value) == Loaded(None, None)
            assert talk.ask(command(b"k", value, 60, STALE), Answers.read_saved) is None
            assert talk.ask(command(b"k", value, 60, None), Answers.read_saved) is not None
            assert client.get("k") == value
            assert talk.ask(command(b"k", b"other", 60, None), Answers.read_saved) is None
            assert talk.ask(command(b"k", b"other", 60, STALE), Answers.read_saved) is None
            client.set("k", value)
            _, cas = client.gets("k")
            assert talk.ask(pipeline.load_command(b"k"), Answers.read_value) == Loaded(
                value, Token(7, cas)
            )
            assert talk.ask(command(b"k", b"other", 60, cas), Answers.read_saved) is not None
            assert client.get("k") == b"other"
    client.close()


def test_meta_write_returns_the_token_of_the_next_write(memcached: Memcached) -> None:
    client, talk = memcached.client(), Talk(memcached)
    with talk.sock:
        client.delete("k")
        cas = None
        for value in (b"one", b"two", b"three"):
            token = talk.ask(
                pipeline.save_command(b"k", value, 60, cas, again=True), Answers.read_saved
            )
            assert isinstance(token, Token)
            assert talk.ask(pipeline.load_command(b"k"), Answers.read_value) == Loaded(value, token)
            cas = token.cas
    client.close()


def test_both_writes_expire(memcached: Memcached) -> None:
    client, talk = memcached.client(), Talk(memcached)
    with talk.sock:
        for again in (False, True):
            command = partial(pipeline.save_command, again=again)
            assert talk.ask(command(b"soon", b"v", 1, None), Answers.read_saved) is not None
            assert client.get("soon") == b"v"
            wait_for(lambda: client.get("soon") is None, "the value expired")
    client.close()
