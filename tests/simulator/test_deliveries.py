"""The engine: retries, redirects, fallback, opt-out, faults on demand. No socket, and a
virtual clock."""

from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from smsd import simulator
from smsd.simulator import FORGETFUL, LOST, STALE, Cookies, Failure, Outcome, Response, perform_all
from smsd.simulator.optout import keyword
from tests.simulator.offline import ACCOUNT, CT, OK, RT, URL, Result, World, answer, moved, xml


def test_a_message_is_posted_signed_and_answered() -> None:
    world = World()
    outcome = world.text("Hello there ")
    (request,) = world.requests
    form = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
    assert (request.method, request.url) == ("POST", URL)
    assert request.header("User-Agent") == "TwilioProxy/1.1"
    assert form["Body"] == "Hello there "
    assert form["MessageSid"] == form["SmsSid"] == form["SmsMessageSid"] == outcome.message.sid
    assert form["NumMedia"] == "0"
    assert RequestValidator("12345").validate(URL, form, request.header("X-Twilio-Signature"))
    assert (outcome.text, outcome.status, outcome.codes) == ("ok", 200, ())
    assert (outcome.replies[0].to, outcome.replies[0].from_) == ("+14158675309", "+14158141829")


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (CT, 11205),
        (Failure("refused"), 11202),
        (RT, 11203),
        (Failure("closed"), 11205),
        (Failure("protocol"), 11206),
        (Failure("host"), 11210),
        (Failure("tls"), 11220),
        (answer(403), 11200),
        (answer(404), 11200),
        (answer(429), 11200),
        (answer(500, ("Content-Type", "text/plain"), body=b"stack trace"), 11200),
        (answer(301), 11200),
        (moved(308), 11216),
        (moved(304), 11216),
        (moved(302), 11215),
        (xml("<Message>a</Message>", "=1"), 11206),
        (answer(200, ("Content-Type", "application/json"), body=b"{}"), 12300),
        (xml("<Redirect>/sms</Redirect>"), 14106),
    ],
)
def test_each_failure_has_its_code_and_brings_no_reply(result: Result, code: int) -> None:
    outcome = World(result).text()
    assert outcome.codes == (code,)
    assert outcome.text is None


@pytest.mark.parametrize(
    ("fragment", "script", "attempts"),
    [
        ("", [CT, OK], 2),
        ("", [CT, CT, OK], 2),
        ("", [Failure("refused"), OK], 2),
        ("", [Failure("tls"), OK], 2),
        ("", [RT, OK], 1),
        ("", [answer(500), OK], 1),
        ("#rc=0", [CT, OK], 1),
        ("#rc=3&ct=1000", [CT, CT, CT, OK], 4),
        ("#rp=5xx", [answer(503), OK], 2),
        ("#rp=5xx", [answer(404), OK], 1),
        ("#rp=5xx", [CT, OK], 1),
        ("#rp=4xx", [answer(404), OK], 2),
        ("#rp=rt&rt=100", [RT, OK], 2),
        ("#rp=rt&rt=100", [replace(RT, begun=True), OK], 1),
        ("#rp=rt", [Failure("closed"), OK], 1),
        ("#rp=all", [Failure("closed"), OK], 2),
        ("#rp=all&rc=5", [answer(500), answer(404), Failure("refused"), OK], 4),
        ("#rp=4xx,5xx&rc=2", [answer(500), answer(404), OK], 3),
        ("#rp=all&rc=5", [xml("<oops/>"), OK], 1),
    ],
)
def test_retries_follow_rc_and_rp(fragment: str, script: Sequence[Result], attempts: int) -> None:
    world = World(*script, account=replace(ACCOUNT, url=URL + fragment))
    outcome = world.text()
    assert len(outcome.attempts) == attempts
    assert len({request.header("I-Twilio-Idempotency-Token") for request in world.requests}) == 1
    assert len({request.body for request in world.requests}) == 1


@given(st.integers(0, 5), st.integers(100, 10000), st.integers(100, 15000))
@settings(max_examples=40, deadline=None)
def test_all_tries_together_stay_within_the_total_time(retries: int, ct: int, tt: int) -> None:
    world = World(CT, account=replace(ACCOUNT, url=f"{URL}#rc={retries}&ct={ct}&tt={tt}&rp=all"))
    outcome = world.text()
    assert outcome.elapsed_s <= tt / 1000 + 0.01
    assert len(outcome.attempts) <= retries + 1


def test_fallback_url_gets_the_message_with_error_code() -> None:
    world = World(
        answer(500), OK, account=replace(ACCOUNT, fallback_url="https://other.example/sms?f=1#rc=0")
    )
    outcome = world.text()
    first, second = world.requests
    form = dict(parse_qsl(second.body.decode(), keep_blank_values=True))
    assert second.url == "https://other.example/sms?f=1"
    assert (form.pop("ErrorCode"), form.pop("ErrorUrl")) == ("11200", URL)
    assert form == dict(parse_qsl(first.body.decode(), keep_blank_values=True))
    assert (outcome.text, outcome.codes) == ("ok", (11200,))


@pytest.mark.parametrize("result", [CT, answer(404), xml("<"), answer(200), moved(308)])
def test_every_failure_asks_the_fallback_at_once(result: Response) -> None:
    hook = replace(ACCOUNT, url=URL + "#rc=0", fallback_url="https://other.example/sms")
    assert World(result, OK, account=hook).text().text == "ok"


def test_a_warning_asks_no_fallback() -> None:
    world = World(xml("<Say/><Message>a</Message>"), account=replace(ACCOUNT, fallback_url=URL))
    assert (world.text().text, len(world.requests)) == ("a", 1)


@pytest.mark.parametrize(
    ("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST")]
)
def test_redirects_are_followed_and_signed_for_their_target(status: int, method: str) -> None:
    world = World(moved(status, "https://new.example/s?x=1#frag"), OK)
    assert world.text().text == "ok"
    second = world.requests[1]
    assert (second.method, second.url) == (method, "https://new.example/s?x=1")
    form = dict(parse_qsl(second.body.decode(), keep_blank_values=True))
    assert bool(form) == (method == "POST")
    assert RequestValidator("12345").validate(second.url, form, second.header("X-Twilio-Signature"))


def test_credentials_are_given_only_when_asked_for() -> None:
    challenge = answer(401, ("WWW-Authenticate", 'Basic realm="x"'))
    world = World(challenge, OK, account=replace(ACCOUNT, url="https://u:p@sms.example.com/sms"))
    assert world.text().text == "ok"
    assert [request.header("Authorization") for request in world.requests] == [None, "Basic dTpw"]
    assert World(challenge).text().codes == (11200,)


def test_the_jar_is_sent_and_replaced_by_each_answer() -> None:
    world = World(*(xml("<Message>a</Message>", f"smsd={n}; Max-Age=14400") for n in range(3)))
    sent = [world.text().cookie_sent for _ in range(3)]
    assert sent == [None, "smsd=0", "smsd=1"]
    world.clock.advance(hours=4)
    assert world.text().cookie_sent is None


def test_an_answer_that_failed_leaves_no_cookie() -> None:
    world = World(answer(500, ("Set-Cookie", "smsd=1")), xml("", "a=1", "b\t=1"), OK)
    assert [world.text().cookie_sent for _ in range(3)] == [None] * 3


def test_a_redirects_cookie_is_kept() -> None:
    world = World(answer(307, ("Location", "/x"), ("Set-Cookie", "r=1")), OK)
    world.text()
    assert world.text().cookie_sent == "r=1"


def test_cookies_can_be_lost_stale_foreign_or_not_kept() -> None:
    world = World(*(xml("", f"smsd={n}") for n in range(9)))
    kinds = [
        Cookies(),
        Cookies(),
        LOST,
        STALE,
        Cookies(back=3),
        Cookies(send="smsd=x"),
        FORGETFUL,
        Cookies(),
    ]
    sent = [world.text(cookies=kind).cookie_sent for kind in kinds]
    assert sent == [None, "smsd=0", None, "smsd=1", "smsd=0", "smsd=x", "smsd=5", "smsd=5"]


def test_composed_messages_can_be_delivered_twice_and_reordered() -> None:
    world = World()
    first, second = world.compose("1"), world.compose("2")
    for message in (second, first, first):
        perform_all(world.twilio.deliver(ACCOUNT, message), world.perform)
    forms = [
        dict(parse_qsl(request.body.decode(), keep_blank_values=True)) for request in world.requests
    ]
    assert [form["Body"] for form in forms] == ["2", "1", "1"]
    assert [form["MessageSid"] for form in forms] == [second.sid, first.sid, first.sid]


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        (w, "STOP")
        for w in ["STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"]
    ]
    + [(w, "START") for w in ["START", "UNSTOP", "yes"]]
    + [("help", "HELP"), (" Info\n", "HELP"), ("stop it", None), ("", None)],
)
def test_opt_out_words(word: str, kind: str | None) -> None:
    assert keyword(word) == kind


def test_after_stop_replies_are_refused_until_start() -> None:
    world = World()
    stopped = world.text("Stop")
    assert (stopped.codes, stopped.text) == ((21610,), None)
    assert "unsubscribed" in str(stopped.automatic)
    assert world.text("hi").codes == (21610,)
    assert world.text("hi", from_="+14158675310").text == "ok"
    assert world.text("start").text == "ok"
    assert world.text("hi").codes == ()


def test_channels_have_no_opt_out_words() -> None:
    world = World()
    outcome = world.text("STOP", from_="whatsapp:+14158675309")
    form = dict(outcome.message.params)
    assert (outcome.automatic, outcome.text) == (None, "ok")
    assert (form["WaId"], form["NumSegments"]) == ("14158675309", "1")
    assert "FromCity" not in form
    assert form["ToCity"] == "SAN FRANCISCO"


@pytest.mark.parametrize(
    ("from_", "to", "is_stopped"),
    [
        ("+14158675309", "+18005550100", True),
        ("rcs:+14158675309", "rcs:acme_agent", True),
        ("+14158675309", "12345", False),
        ("messenger:1234567", "messenger:7654321", False),
    ],
)
def test_opt_out_words_work_by_sms_and_rcs_and_not_on_short_codes(
    from_: str, to: str, is_stopped: bool
) -> None:
    world = World()
    assert (world.text("STOP", from_=from_, to=to).automatic is not None) is is_stopped
    assert world.text("hi", from_=from_, to=to).codes == ((21610,) if is_stopped else ())


def test_yes_is_no_word_at_a_toll_free_number() -> None:
    assert World().text("YES", to="+18005551212").automatic is None
    assert World().text("YES", to="+14158141829").automatic is not None


def test_advanced_opt_out_answers_on_every_channel() -> None:
    world = World(account=replace(ACCOUNT, advanced_opt_out=True))
    assert world.text("stop", from_="whatsapp:+14158675309").automatic is not None


def test_advanced_opt_out_says_so_in_the_form() -> None:
    world = World(account=replace(ACCOUNT, advanced_opt_out=True))
    assert dict(world.text("stop").message.params)["OptOutType"] == "STOP"
    assert "OptOutType" not in dict(world.text("hi").message.params)


def test_media_are_numbered_from_zero() -> None:
    world = World()
    more = [("https://a.example/1", "image/png"), ("https://a.example/2", "image/gif")]
    form = dict(
        world.twilio.compose(ACCOUNT, "", "+1", "+2", media=more, extra={"AddOns": "{}"}).params
    )
    assert (form["NumMedia"], form["MediaUrl1"], form["MediaContentType0"]) == (
        "2",
        "https://a.example/2",
        "image/png",
    )
    assert form["MessageSid"].startswith("MM")
    assert form["AddOns"] == "{}"
    assert form["FromCity"] == ""


def test_two_bots_are_stopped_after_thirty_quick_replies() -> None:
    world = World()
    codes = [world.text().codes for _ in range(31)]
    assert codes == [()] * 30 + [(14107,)]
    world.clock.advance(30)
    assert world.text().codes == ()


def test_slow_replies_are_never_a_loop() -> None:
    world = World()
    for _ in range(40):
        assert world.text().codes == ()
        world.clock.advance(30)


def test_status_callbacks_come_in_any_order() -> None:
    world = World(
        OK, answer(204), account=replace(ACCOUNT, status_url="https://sms.example.com/sms/status")
    )
    outcome = world.text()
    orders = {tuple(world.twilio.statuses()) for _ in range(50)}
    assert len(orders) == 6
    for status in orders.pop():
        flow = world.twilio.status(
            world.account, outcome.message, outcome.replies[0].sid, status, 30007
        )
        assert perform_all(flow, world.perform).errors == ()
    form = dict(parse_qsl(world.requests[-1].body.decode()))
    assert (form["ErrorCode"], form["MessageSid"]) == ("30007", outcome.replies[0].sid)
    assert "undelivered" in world.twilio.statuses(delivered=False)


def test_status_callback_without_a_url_raises_value_error() -> None:
    world = World()
    flow = world.twilio.status(ACCOUNT, world.compose(), "SM1", "sent")
    with pytest.raises(ValueError, match="statusCallback"):
        perform_all(flow, world.perform)


def test_an_outcome_without_attempts_has_nothing_to_show() -> None:
    outcome = Outcome(World().compose())
    assert (outcome.text, outcome.status, outcome.twiml, outcome.cookie, outcome.cookie_sent) == (
        None,
        None,
        b"",
        None,
        None,
    )


def test_machine_made_text_never_reaches_the_webhook() -> None:
    world = World()
    message = replace(world.compose(), is_machine_made=True)
    outcome = perform_all(world.twilio.deliver(ACCOUNT, message), world.perform)
    assert (outcome.codes, outcome.attempts, world.requests) == ((30039,), (), [])
    composed = world.twilio.compose(ACCOUNT, "hi", "+1", "+2", is_machine_made=True)
    assert composed.is_machine_made


@pytest.mark.parametrize(
    ("old", "new"), [("Answer", "Response"), ("Reply", "Outbound"), ("Webhook", "WebhookUrl")]
)
def test_old_names_still_work_with_a_warning(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=new):
        assert getattr(simulator, old) is getattr(simulator, new)
    with pytest.raises(AttributeError):
        _ = simulator.nothing
