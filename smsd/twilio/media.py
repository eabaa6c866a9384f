"""A file that came with a message: `Media`.

The code that makes a message brings the function that downloads, so that a test can
serve files without a network.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from smsd.errors import MediaError

Fetch = Callable[[str, int], Awaitable[bytes]]
"""Downloads a URL, of at most so many bytes. Raises MediaError."""

DEFAULT_LIMIT_BYTES = 5_000_000
"""Twilio accepts at most 5 MB of media in a message."""


@dataclass(frozen=True, slots=True)
class Media:
    """A picture or another file that came with a message.

    url           where Twilio keeps it
    content_type  such as "image/png", or "" if Twilio does not say

    >>> Media("https://api.twilio.com/…/Media/ME0", "image/png").content_type
    'image/png'
    """

    url: str
    content_type: str
    fetch: Fetch | None = field(default=None, repr=False, compare=False)
    """Set by smsd: downloads the file."""

    async def read(self, *, limit: int = DEFAULT_LIMIT_BYTES) -> bytes:
        """Download the file. Added in 0.2.

        limit  the most bytes to accept

        Raises `smsd.errors.MediaError` if the file is larger, if it is gone (its
        `status` is then 404), if Twilio refuses the credentials (401), or if it does
        not arrive within 30 s. `SMSD_DIALOGUE_TIMEOUT` applies too.

        smsd follows redirects. It sends credentials only to Twilio's own hosts, and
        only over https: `TWILIO_API_KEY` and `TWILIO_API_SECRET`, or else the account's
        SID and auth token. Twilio wants them only if the account demands HTTP
        authentication for media.

        Which host is asked is Twilio's choice: the URL is part of the signed request,
        and senders cannot choose it. smsd does not check it any further. So do not make
        a `Media` from a URL that somebody texted.

            async def reply(message, session):
                for media in message.media:
                    if media.content_type.startswith("image/"):
                        picture = await media.read(limit=1_000_000)

        A plain function, which runs in a thread, calls `asyncio.run(media.read())`.
        """
        if self.fetch is None:
            raise MediaError("this message was not received by smsd, so nothing can be downloaded")
        return await self.fetch(self.url, limit)
