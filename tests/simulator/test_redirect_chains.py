"""`<Redirect>` chains: each document has its own limits, and its texts are sent when it
is reached."""

from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from smsd.simulator import LOST, STALE, Failure, Request, Response
from tests.simulator.offline import ACCOUNT, CT, OK, RT, URL, Result, World, answer, moved, xml

FALLBACK = "https://other.example/sms"
HOP = xml("<Redirect>/sms?hop=1</Redirect>")


def form(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode(), keep_blank_values=True))


def test_redirect_verb_keeps_the_texts_before_it() -> None:
    world = World(
        xml("<Message>a</Message><Redirect>/more</Redirect>"), xml("<Message>b</Message>")
    )
    outcome = world.text()
    assert (outcome.text, outcome.hops) == ("a\nb", 1)
    assert world.requests[1].url == "https://sms.example.com/more"
    assert form(world.requests[1]) == form(world.requests[0])


def test_a_hop_is_signed_for_its_own_url() -> None:
    world = World(HOP, OK)
    world.text()
    hop = world.requests[1]
    assert hop.url == f"{URL}?hop=1"
    assert RequestValidator("12345").validate(hop.url, form(hop), hop.header("X-Twilio-Signature"))


def test_every_document_has_the_full_time_for_itself() -> None:
    world = World(*[HOP] * 4, OK, pace_s=14)
    outcome = world.text()
    assert (outcome.text, outcome.hops, outcome.waited_s) == ("ok", 4, 70)
    assert {request.total_timeout_s for request in world.requests} == {15}


def test_every_document_has_its_own_retries() -> None:
    world = World(CT, HOP, CT, HOP, CT, CT)
    outcome = world.text()
    assert len(outcome.attempts) == 6
    assert outcome.codes == (11205,)


def test_connection_overrides_belong_to_the_url_that_carries_them() -> None:
    script = (
        xml("<Redirect>/plain</Redirect>"),
        xml("<Redirect>/own#rt=200&amp;tt=900</Redirect>"),
    )
    world = World(*script, OK, account=replace(ACCOUNT, url=f"{URL}#ct=100&rt=100&tt=300"))
    assert world.text().text == "ok"
    limits = [(r.connect_timeout_s, r.read_timeout_s, r.total_timeout_s) for r in world.requests]
    assert limits[0] == pytest.approx((0.1, 0.1, 0.3))
    assert limits[1] == pytest.approx((5, 15, 15))
    assert limits[2] == pytest.approx((5, 0.2, 0.9))
    assert world.requests[2].url == "https://sms.example.com/own"


def test_text_before_a_redirect_is_sent_first() -> None:
    seen: list[str] = []

    def service(request: Request) -> Response:
        seen.append(urlsplit(request.url).query)
        return OK if seen[-1] else one_moment

    one_moment = xml("<Message>one moment</Message><Redirect>?hop=1</Redirect>")
    world = World(service, pace_s=12)
    outcome = world.text(
        on_reply=lambda reply: seen.append(reply.body), on_hop=lambda hop: seen.append(f"hop {hop}")
    )
    assert seen == ["", "one moment", "hop 1", "hop=1", "ok"]
    assert [reply.after_s for reply in outcome.replies] == [12, 24]


def test_waiting_ends_with_the_last_reply() -> None:
    world = World(xml("<Message>early</Message><Redirect>/more</Redirect>"), xml(""), pace_s=10)
    outcome = world.text()
    assert (outcome.waited_s, outcome.elapsed_s) == (10, 20)


def test_without_a_reply_the_sender_waits_until_the_end() -> None:
    assert World(xml(""), pace_s=3).text().waited_s == 3


@pytest.mark.parametrize("failure", [RT, answer(500), answer(403), xml("<")])
def test_failed_hop_is_asked_for_at_the_fallback_url(failure: Result) -> None:
    world = World(HOP, failure, OK, account=replace(ACCOUNT, fallback_url=FALLBACK))
    outcome = world.text()
    assert (outcome.text, outcome.hops, len(outcome.codes)) == ("ok", 1, 1)
    assert world.requests[2].url == FALLBACK
    assert form(world.requests[2])["ErrorUrl"] == f"{URL}?hop=1"


def test_document_after_a_fallback_has_a_fallback_too() -> None:
    script = (answer(500), xml("<Redirect>/sms?hop=2</Redirect>"), answer(502), OK)
    world = World(*script, account=replace(ACCOUNT, fallback_url=FALLBACK))
    assert world.text().text == "ok"
    assert [request.url for request in world.requests] == [
        URL, FALLBACK, "https://other.example/sms?hop=2", FALLBACK,
    ]  # fmt: skip
    assert ["ErrorCode" in form(request) for request in world.requests] == [
        False, True, False, True,
    ]  # fmt: skip


def test_a_fallback_url_that_fails_is_not_asked_again() -> None:
    world = World(answer(500), account=replace(ACCOUNT, fallback_url=FALLBACK))
    outcome = world.text()
    assert (outcome.codes, len(world.requests)) == ((11200, 11200), 2)


def test_a_message_has_fifty_documents_and_no_more() -> None:
    world = World(xml("<Redirect>/sms</Redirect>"))
    outcome = world.text()
    assert (outcome.codes, len(world.requests)) == ((14106,), 50)
    world = World(*[HOP] * 49, OK)
    outcome = world.text()
    assert (outcome.text, outcome.hops) == ("ok", 49)


def test_a_message_has_ten_replies_over_all_documents() -> None:
    six = "<Message>a</Message>" * 6
    outcome = World(xml(f"{six}<Redirect>/more</Redirect>"), xml(six)).text()
    assert len(outcome.replies) == 10
    assert outcome.codes == (14109, 14109)


def test_hops_carry_the_cookie_of_the_answer_before() -> None:
    world = World(xml("<Redirect/>", "smsd=1"), xml("<Redirect/>", "smsd=2"), OK)
    world.text()
    assert [request.header("Cookie") for request in world.requests] == [None, "smsd=1", "smsd=2"]


def test_hops_without_a_new_cookie_carry_the_first_one() -> None:
    world = World(xml("", "smsd=1"), xml("<Redirect/>"), OK)
    world.text()
    world.text()
    assert [request.header("Cookie") for request in world.requests] == [None, "smsd=1", "smsd=1"]


def test_lost_cookie_is_lost_for_the_first_document() -> None:
    world = World(xml("", "smsd=1"), xml("<Redirect/>", "smsd=2"), OK)
    world.text()
    world.text(cookies=LOST)
    assert [request.header("Cookie") for request in world.requests] == [None, None, "smsd=2"]


def test_old_cookie_never_comes_from_a_hop() -> None:
    world = World(
        xml("", "smsd=1"),
        xml("<Redirect/>", "smsd=2"),
        xml("<Redirect/>", "smsd=3"),
        xml("", "smsd=4"),
        OK,
    )
    world.text()
    world.text()
    assert world.text(cookies=STALE).cookie_sent == "smsd=1"


def test_redirect_by_get_signs_the_form_in_the_query() -> None:
    world = World(xml("<Redirect method='GET'>/more?a=1</Redirect>"), OK)
    world.text()
    first, second = world.requests
    assert (second.method, second.body) == ("GET", b"")
    query = dict(parse_qsl(urlsplit(second.url).query, keep_blank_values=True))
    assert query == {"a": "1", **form(first)}
    assert RequestValidator("12345").validate(second.url, {}, second.header("X-Twilio-Signature"))


def test_redirect_with_an_unknown_method_is_a_post() -> None:
    world = World(xml("<Redirect method='PUT'>/more</Redirect>"), OK)
    assert world.text().codes == (12200,)
    assert world.requests[1].method == "POST"


@pytest.mark.parametrize("url", ["ftp://a.example/", "mailto:a@b.example", "/sms#rc=9"])
def test_redirect_to_a_bad_url_keeps_what_was_sent(url: str) -> None:
    outcome = World(xml(f"<Message>a</Message><Redirect>{url}</Redirect>")).text()
    assert (outcome.text, outcome.codes) == ("a", (11100,))


def test_http_redirects_are_no_hops() -> None:
    outcome = World(moved(307, "/else"), OK).text()
    assert (outcome.text, outcome.hops, len(outcome.attempts)) == ("ok", 0, 2)


RESULTS = [
    OK,
    HOP,
    CT,
    RT,
    Failure("closed", begun=True),
    answer(500),
    answer(204),
    moved(307),
    moved(302, "https://other.example/"),
    xml("<Message>a</Message><Redirect method='GET'>/more</Redirect>", "smsd=1"),
    xml("<Redirect>ftp://nowhere/</Redirect>"),
    xml("<Message>a</Message>" * 6 + "<Redirect/>"),
    xml("<oops>", "=1"),
]


@given(
    st.lists(st.sampled_from(RESULTS), min_size=1, max_size=90), st.booleans(), st.integers(0, 5)
)
@settings(max_examples=60, deadline=None)
def test_any_chain_ends_within_twilios_limits(
    script: list[Result], has_fallback: bool, retries: int
) -> None:
    account = replace(
        ACCOUNT, url=f"{URL}#rc={retries}&rp=all", fallback_url=FALLBACK if has_fallback else None
    )
    world = World(*script, account=account, pace_s=3)
    hops: list[int] = []
    outcome = world.text(on_hop=hops.append)
    assert len(outcome.replies) <= 10
    assert hops == list(range(1, outcome.hops + 1))
    assert outcome.hops <= 50
    assert len(outcome.attempts) == len(world.requests) <= 50 * 11 * (retries + 1)
    assert outcome.waited_s <= outcome.elapsed_s <= 50 * (15 + 11 * 3 + 15)
    times = [reply.after_s for reply in outcome.replies]
    assert times == sorted(times)
