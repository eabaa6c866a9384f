"""The sentence above the inspector: who knew which count, and what became of the
message."""

from dataclasses import replace

import pytest

from smsd.dev.verdict import Facts, judge
from smsd.exchange.events import Counted
from smsd.simulator import Attempt, Notice, Outbound, Outcome, Request, Response
from smsd.twilio.message import Message
from tests.simulator.offline import World

MESSAGE = World().compose()
RECEIVED = Message(MESSAGE.sid, MESSAGE.account_sid, MESSAGE.to, MESSAGE.from_, MESSAGE.body)
REQUEST = Request("POST", "https://sms.example.com/sms", (), b"", 5, 15, 15)
HELLO = Outbound("SM1", MESSAGE.to, MESSAGE.from_, "hello")


def outcome(
    text: str | None = "hello",
    status: int = 200,
    errors: tuple[Notice, ...] = (),
    hops: int = 0,
    waited_s: float = 0,
) -> Outcome:
    replies = () if text is None else (replace(HELLO, body=text),)
    attempts = (Attempt(REQUEST, Response(status, (), b""), 0, 0),)
    return Outcome(MESSAGE, replies, errors, attempts, automatic=None, hops=hops, waited_s=waited_s)


def counted(outcome_label: str, number: int) -> Counted:
    return Counted(RECEIVED, b"", outcome_label, number, "valid", 0.0)


def facts(
    number: int = 5, cookie: int | None = 4, record: int | None = 4, outcome_label: str = "counted"
) -> Facts:
    return Facts(
        [outcome()], [counted(outcome_label, number)], cookie_count=cookie, record_count=record
    )


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (facts(), "Cookie and record said 4: counted as 5."),
        (facts(1, None, None), "No cookie, no record: counted as 1."),
        (facts(5, 4, None), "Cookie (4), no record: counted as 5."),
        (facts(5, None, 4), "No cookie, record said 4: counted as 5."),
        (facts(5, 3, 4), "Cookie (3), record said 4: counted as 5."),
        (
            replace(facts(6, 4, 5), cookie="stale"),
            "Old cookie (4), record said 5: counted as 6.",
        ),
        (
            replace(facts(2, None, 1), cookie="stale"),
            "No older cookie yet, record said 1: counted as 2.",
        ),
        (replace(facts(6, None, 5), cookie="lost"), "Cookie lost, record said 5: counted as 6."),
        (
            replace(facts(3, 2, None), cookie="stale", is_store_up=False),
            "Old cookie (2), store down: counted as 3 for now; merged when the store is back.",
        ),
        (
            replace(facts(), outcomes=[outcome(None)]),
            "Cookie and record said 4: counted as 5; the dialogue did not reply.",
        ),
        (
            facts(outcome_label="opted_out"),
            "Twilio itself answers this word. Cookie and record said 4: counted as 5, no dialogue.",
        ),
        (
            facts(outcome_label="looped"),
            "Too many quick replies: smsd is silent. Cookie and record said 4: counted as 5.",
        ),
        (
            replace(facts(), outcomes=[outcome(None, errors=(Notice(21610, "opted out"),))]),
            "This number has opted out: Twilio sends it nothing. Cookie and record said 4: counted as 5.",
        ),
        (
            replace(facts(), outcomes=[outcome(None, 403)], counted=[], forged=True),
            "Wrong signature: refused with 403, nothing counted.",
        ),
    ],
)
def test_a_message_that_went_as_it_should(what: Facts, text: str) -> None:
    verdict = judge(what)
    assert (verdict.text, verdict.good, verdict.notes) == (text, True, ())


NO_ANSWER = Outcome(MESSAGE, errors=(Notice(11202, "refused: nobody listens"),))


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (
            replace(facts(), outcomes=[NO_ANSWER], counted=[]),
            "No usable answer (refused: nobody listens): the sender gets nothing.",
        ),
        (
            replace(facts(), outcomes=[outcome(None, 500, (Notice(11200, "s"),))], counted=[]),
            "No usable answer (s): the sender gets nothing.",
        ),
        (
            replace(facts(), outcomes=[outcome(None, 403, (Notice(11200, "s"),))], counted=[]),
            "smsd refused the signature: its log says why.",
        ),
        (
            replace(facts(), counted=[]),
            "Answered with 200, but not by this smsd.",
        ),
        (replace(facts(), forged=True), "Wrong signature, yet the answer was 200."),
        (
            replace(facts(), outcomes=[outcome(None, errors=(Notice(21617, "too long"),))]),
            "Cookie and record said 4: counted as 5, but Twilio refused a reply: too long.",
        ),
    ],
)
def test_a_message_that_went_wrong(what: Facts, text: str) -> None:
    verdict = judge(what)
    assert (verdict.text, verdict.good) == (text, False)


def test_verdict_on_a_failed_dialogue_names_the_error() -> None:
    failed = replace(facts(outcome_label="failed"), problem="KeyError: 'x'")
    verdict = judge(failed)
    assert (verdict.text, verdict.good) == ("The dialogue failed: KeyError: 'x'", False)
    assert verdict.notes == ("The sender got the apology. Cookie and record said 4: counted as 5.",)
    silent = judge(replace(failed, problem="", outcomes=[outcome(None)]))
    assert silent.text == "The dialogue failed."
    assert silent.notes[0].startswith("The sender got nothing.")


def test_redirects_are_told_with_the_time_they_took() -> None:
    slow = replace(facts(), outcomes=[outcome(hops=2, waited_s=25.4)])
    assert judge(slow).notes == ("Twilio was asked to come again 2 times; the reply took 25 s.",)
    once = replace(facts(), outcomes=[outcome(hops=1, waited_s=13)])
    assert "come again once" in judge(once).notes[0]


def test_delivered_twice_is_counted_once_with_the_same_reply() -> None:
    twice = replace(
        facts(),
        outcomes=[outcome(), outcome()],
        counted=[counted("counted", 5), counted("duplicate", 5)],
    )
    verdict = judge(twice)
    assert (verdict.text, verdict.good) == ("Delivered twice: counted once, same reply.", True)
    assert verdict.notes == ("Cookie and record said 4: counted as 5.",)
    failing = judge(replace(twice, problem="boom"))
    assert (failing.text, failing.good) == ("The dialogue failed: boom", False)


def test_delivered_twice_and_counted_twice_is_a_fault() -> None:
    twice = replace(
        facts(),
        outcomes=[outcome(), outcome()],
        counted=[counted("counted", 5), counted("counted", 6)],
    )
    assert judge(twice).text == "Delivered twice and counted twice: 5 and 6."
    assert not judge(twice).good


def test_delivered_twice_with_two_replies_is_a_fault() -> None:
    twice = replace(
        facts(),
        outcomes=[outcome("a"), outcome("b")],
        counted=[counted("counted", 5), counted("duplicate", 5)],
    )
    assert judge(twice).text == "Delivered twice: counted once, but the replies differ."
    assert not judge(twice).good
