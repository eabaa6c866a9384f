"""One sentence that says what became of a message, for the phone page. No IO.

It states facts that smsd and Twilio reported. Where the cookie and the record knew
different counts, it says who knew what, because that is what the page's switches are
for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from smsd.exchange.events import Counted
from smsd.simulator.values import Outcome


@dataclass(frozen=True, slots=True)
class Facts:
    """What the sentence is made of.

    outcomes        what became of each delivery, as Twilio saw it
    counted         how the service counted them; none for what it refused
    cookie          which cookie was asked for: jar, lost or stale
    cookie_count    the count in the cookie that was sent; None if none was sent or it was refused
    record_count    the count in the store before the message; None if there was no record
    problem         why the dialogue failed, in one line, if it did
    """

    outcomes: Sequence[Outcome]
    counted: Sequence[Counted]
    forged: bool = False
    cookie: str = "jar"
    cookie_count: int | None = None
    record_count: int | None = None
    is_store_up: bool = True
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The sentence, and whether all went as it should."""

    text: str
    good: bool = True
    notes: tuple[str, ...] = field(default=())


def judge(facts: Facts) -> Verdict:
    """The verdict on a message that was delivered, once or more often."""
    last = facts.outcomes[-1]
    if facts.forged:
        return _judge_forged(last)
    if last.status is None or (last.errors and not facts.counted):
        return _judge_unanswered(last)
    verdict = _judge_delivery(facts, last)
    if len(facts.outcomes) > 1:
        verdict = _judge_repeated(facts, verdict)
    return verdict


def _judge_forged(last: Outcome) -> Verdict:
    if last.status == 403:
        return Verdict("Wrong signature: refused with 403, nothing counted.")
    return Verdict(f"Wrong signature, yet the answer was {last.status or 'missing'}.", good=False)


def _judge_unanswered(last: Outcome) -> Verdict:
    if last.status == 403:
        return Verdict("smsd refused the signature: its log says why.", good=False)
    reason = last.errors[0].text if last.errors else f"status {last.status}"
    return Verdict(f"No usable answer ({reason}): the sender gets nothing.", good=False)


def _judge_repeated(facts: Facts, once: Verdict) -> Verdict:
    numbers = [event.number for event in facts.counted]
    replies = {outcome.text for outcome in facts.outcomes}
    if len(set(numbers)) > 1:
        told = " and ".join(map(str, numbers))
        return Verdict(f"Delivered twice and counted twice: {told}.", good=False)
    if len(replies) > 1:
        return Verdict("Delivered twice: counted once, but the replies differ.", good=False)
    if not once.good:
        return once
    return Verdict("Delivered twice: counted once, same reply.", notes=(once.text, *once.notes))


def _judge_delivery(facts: Facts, last: Outcome) -> Verdict:
    if not facts.counted:  # Twilio got an answer from something that is not this smsd
        return Verdict(f"Answered with {last.status}, but not by this smsd.", good=False)
    outcome = facts.counted[0].outcome
    sentence = f"{_known(facts)}: counted as {facts.counted[0].number}"
    notes = _waiting(last)
    if facts.problem or outcome == "failed":
        got = "The sender got the apology" if last.replies else "The sender got nothing"
        text = "The dialogue failed" + (f": {facts.problem}" if facts.problem else ".")
        return Verdict(text, False, (f"{got}. {sentence}.", *notes))
    codes = [notice.code for notice in last.errors if not notice.warning]
    if 21610 in codes:
        return Verdict(
            f"This number has opted out: Twilio sends it nothing. {sentence}.", True, notes
        )
    if codes:
        return Verdict(
            f"{sentence}, but Twilio refused a reply: {last.errors[0].text}.", False, notes
        )
    if outcome == "opted_out":
        return Verdict(f"Twilio itself answers this word. {sentence}, no dialogue.", True, notes)
    if outcome == "looped":
        return Verdict(f"Too many quick replies: smsd is silent. {sentence}.", True, notes)
    if not facts.is_store_up:
        sentence += " for now; merged when the store is back"
    if not last.replies:
        sentence += "; the dialogue did not reply"
    return Verdict(f"{sentence}.", True, notes)


def _known(facts: Facts) -> str:
    """What the cookie and the record knew before the message."""
    cookie, record = facts.cookie_count, facts.record_count
    name = {"lost": "Cookie lost", "stale": "Old cookie"}.get(facts.cookie, "Cookie")
    if facts.cookie == "stale" and cookie is None:
        name = "No older cookie yet"
    in_record = f"record said {record}" if record is not None else "no record"
    if not facts.is_store_up:
        in_record = "store down"
    if cookie is None:
        name = "No cookie" if facts.cookie == "jar" else name
        return f"{name}, {in_record}"
    if facts.cookie == "jar" and cookie == record and facts.is_store_up:
        return f"Cookie and record said {record}"
    return f"{name} ({cookie}), {in_record}"


def _waiting(last: Outcome) -> tuple[str, ...]:
    if not last.hops:
        return ()
    times = "once" if last.hops == 1 else f"{last.hops} times"
    return (f"Twilio was asked to come again {times}; the reply took {last.waited_s:.0f} s.",)
