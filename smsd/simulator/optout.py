"""The words by which a sender opts out and in, and Twilio's own answers to them.

Knows only the words and where they count; who has opted out is the engine's to
remember.
"""

import re

from smsd.simulator.values import Inbound

STOP = {"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"}
START = {"START", "UNSTOP", "YES"}
HELP = {"HELP", "INFO"}
AUTOMATIC = {
    "STOP": "You have successfully been unsubscribed. Reply START to resubscribe.",
    "START": "You have successfully been re-subscribed. Reply HELP for help, STOP to unsubscribe.",
    "HELP": "Reply STOP to unsubscribe. Msg&Data Rates May Apply.",
}
TOLL_FREE = ("+1800", "+1833", "+1844", "+1855", "+1866", "+1877", "+1888")
_SHORT_CODE = re.compile(r"[0-9]{3,8}")


def keyword(body: str) -> str | None:
    """STOP, START or HELP if the body is one of Twilio's words for it, in any case;
    else None."""
    word = body.strip().upper()
    kinds = {"STOP": STOP, "START": START, "HELP": HELP}
    return next((kind for kind, words in kinds.items() if word in words), None)


def answered_keyword(message: Inbound) -> str | None:
    """The keyword of a message that Twilio answers itself; None if it leaves that to
    the service.

    With Advanced Opt-Out, which marks the message, Twilio answers on every channel.
    Otherwise it answers SMS and RCS to long codes and toll-free numbers. YES is no such
    word at a toll-free number.
    """
    kind = keyword(message.body)
    if kind is None or ("OptOutType", kind) in message.params:
        return kind
    channel, number = message.from_.rpartition(":")[0], message.to.rpartition(":")[2]
    if channel.lower() not in ("", "rcs") or _SHORT_CODE.fullmatch(number):
        return None
    if number.startswith(TOLL_FREE) and message.body.strip().upper() == "YES":
        return None
    return kind
