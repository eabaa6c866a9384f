"""Limits that Twilio sets and that more than one room has to know."""

MAX_REDIRECTS = 40
"""How often smsd redirects one message. Twilio stops at 50 documents (error 14106)."""
