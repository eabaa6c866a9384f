"""The ids of conversations, messages and lineages.

Ids of conversations and messages are hashes, so that no store and no cookie holds a
phone number. Ids of lineages grow with time; the caller brings the time and the random
bits.
"""

import hashlib

DIGEST_BYTES = 6
"""Of a message digest. A new message has a chance of one in ten million million to be
taken for one of 32 others."""

_RANDOM_BITS = 22


def conversation_id(hash_key: bytes, account_sid: str, to: str, from_: str) -> bytes:
    """The 18 bytes that stand for (AccountSid, To, From) in the store, cookies and
    logs.

    The hash is keyed: there are few enough phone numbers to try them all. Lengths come
    before the parts, so no two triples produce the same text.
    """
    text = f"{len(account_sid)},{len(to)},{account_sid}{to}{from_}"
    packed = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(packed, key=hash_key, digest_size=18).digest()


def storage_key(conversation_id: bytes) -> bytes:
    """The record's key in memcached: 41 bytes, no blanks, no number readable in it."""
    return b"smsd:" + conversation_id.hex().encode()


def hashing_key(secret: bytes) -> bytes:
    """The key of `conversation_id` from a secret of any length."""
    return hashlib.blake2b(secret, digest_size=32).digest()


def message_digest(message_sid: str) -> bytes:
    """The short id of a message in records and cookies."""
    packed = message_sid.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(packed, digest_size=DIGEST_BYTES).digest()


def lineage_id(now_ms: int, random_bits: int, above: int = 0) -> int:
    """The id of a new lineage: by time, and larger than `above` even if clocks
    disagree."""
    drawn = random_bits & ((1 << _RANDOM_BITS) - 1)
    return max(now_ms << _RANDOM_BITS | drawn, above + 1 + drawn)
