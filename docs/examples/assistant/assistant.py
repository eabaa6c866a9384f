"""A dialogue that lets a language model answer, at any endpoint that speaks OpenAI's protocol."""

import json
import os

from tornado.httpclient import AsyncHTTPClient, HTTPClientError

from smsd import Message, Session

PROMPT = "You answer text messages for a bakery. Be brief and friendly. Do not use Markdown."
LONGEST_REPLY = 450  # characters: three segments of an SMS
TIME_LIMIT_S = 45.0
SORRY = "I cannot think right now. Please ask me again in a minute."


class Assistant:
    """Settings: ASSISTANT_URL (https://api.openai.com/v1), ASSISTANT_KEY, ASSISTANT_MODEL."""

    def __init__(self) -> None:
        self.url = os.environ["ASSISTANT_URL"].rstrip("/") + "/chat/completions"
        self.key = os.environ["ASSISTANT_KEY"]
        self.model = os.environ["ASSISTANT_MODEL"]

    def open(self) -> None:
        self.client = AsyncHTTPClient(force_instance=True, max_clients=1000)

    def close(self) -> None:
        self.client.close()

    async def __call__(self, message: Message, session: Session) -> str:
        try:
            answer = await self.complete(chat(message, session))
        except (HTTPClientError, OSError, LookupError, TypeError, ValueError):
            return SORRY  # unreachable, too slow, refused, or an answer of another form
        return shortened(answer)

    async def complete(self, messages: list[dict[str, str]]) -> str:
        response = await self.client.fetch(
            self.url,
            method="POST",
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
            body=json.dumps({"model": self.model, "messages": messages, "max_tokens": 200}),
            connect_timeout=5.0,
            request_timeout=TIME_LIMIT_S,
        )
        return str(json.loads(response.body)["choices"][0]["message"]["content"])


def chat(message: Message, session: Session) -> list[dict[str, str]]:
    """The prompt, what was said before, and the new message."""
    messages = [{"role": "system", "content": PROMPT}]
    for earlier in session.history:
        messages.append({"role": "user", "content": earlier.text})
        messages.append({"role": "assistant", "content": earlier.reply})
    return [*messages, {"role": "user", "content": message.body}]


def shortened(text: str) -> str:
    """The text in one line, cut at a word if it is too long for a reply."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_REPLY else text[:LONGEST_REPLY].rsplit(" ", 1)[0] + " ..."


reply = Assistant
