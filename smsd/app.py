"""The composition root: turns settings into stores, the dialogue, metrics and
listeners.

Decides nothing itself: it passes what the settings say to the parts that need it.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from tornado.web import Application, RequestHandler

from smsd.dialogues.loading import LoadedDialogue
from smsd.exchange.events import Observer, Observers
from smsd.exchange.exchange import Exchange
from smsd.exchange.runner import Policy
from smsd.settings.table import Settings
from smsd.store import Remote, Store
from smsd.store.connection import client_context
from smsd.store.memcached import Memcached
from smsd.store.memory import CookieOnly, Memory
from smsd.store.overlay import OverlayStore
from smsd.telemetry.messages import MessageReporter
from smsd.telemetry.metrics import Metrics
from smsd.twilio.message import FetchMedia
from smsd.twilio.signature import KeyRing
from smsd.version import VERSION
from smsd.web import cookies, pages
from smsd.web.admission import Admission
from smsd.web.download import MediaFetcher
from smsd.web.gate import Gate
from smsd.web.handlers import public_application
from smsd.web.refusals import Refusals

Routes = list[tuple[str, type[RequestHandler], dict[str, Any]]]


class Service:
    """Everything that one process of smsd consists of. Create and `close` it in the
    same running event loop.

    now_ms       the time in milliseconds since 1970
    clock_s      a monotonic clock in seconds
    wrap         wraps the remote store; the development server can take it down and up
    fetch_media  downloads the files that come with messages; a test brings its own
    observers    told what happens to messages, besides metrics and logs
    """

    def __init__(
        self,
        settings: Settings,
        dialogue: LoadedDialogue,
        *,
        now_ms: Callable[[], int],
        clock_s: Callable[[], float],
        wrap: Callable[[Remote], Remote] = lambda remote: remote,
        fetch_media: FetchMedia | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.settings = settings
        self.dialogue = dialogue
        self.draining = False
        self._fetch_media = fetch_media or MediaFetcher(lambda: self.settings)
        self.metrics = Metrics(nodes=(*settings.store.nodes, *(settings.store_former or ())))
        self.refusals = Refusals(self.metrics, clock_s)
        self.admission = Admission()
        self._now_ms = now_ms
        self._draw = random.Random().getrandbits  # noqa: S311 - names of lineages, no secrets
        self.store = self._store(wrap)
        policy = Policy(
            dialogue=dialogue,
            apology=settings.apology,
            one_moment=settings.one_moment,
            dialogue_timeout_s=settings.dialogue_timeout_s,
            loop_limit=settings.loop_limit,
            opt_out=settings.opt_out,
            history=settings.history,
        )
        reporter = MessageReporter(self.metrics)
        self.exchange = Exchange(
            store=self.store,
            policy=policy,
            hash_key=settings.hash_key.reveal(),
            ttl_s=settings.session_ttl_s,
            answer_within_s=settings.answer_within_s,
            now_ms=now_ms,
            random_bits=self._random_bits,
            observer=Observers(reporter, *observers) if observers else reporter,
        )
        self.gate = Gate(
            _ring(settings),
            public_url=settings.public_url,
            prefix=settings.prefix,
            accounts=_accounts(settings),
            clock_s=clock_s,
        )
        self._applications: list[Application] = []

    def public(self, extra: Routes = []) -> Application:  # noqa: B006 - only read
        """The application of the public listener, with `extra` pages."""
        application = public_application(
            self.gate,
            self.exchange,
            self.metrics,
            prefix=self.settings.prefix,
            ttl_s=self.settings.session_ttl_s,
            refused=self.refusals,
            admission=self.admission,
            fetch_media=self._fetch_media,
            extra=[*extra],
            is_ready=lambda: not self.draining,
            **cookies.signing_settings(self.settings),
        )
        self._applications.append(application)
        return application

    def admin(self) -> Application:
        """The application of the admin listener."""
        shown = pages.admin_pages(
            self.metrics, is_ready=lambda: not self.draining, status=self.status
        )
        return pages.application(shown, self.metrics, self.refusals, self.admission)

    def status(self) -> dict[str, object]:
        """What `/status` shows."""
        return {
            "version": VERSION,
            "store": self.settings.store.kind,
            "nodes": {name: "up" if up else "down" for name, up in self.store.nodes.items()},
            "pending": self.store.pending,
            "dialogue": self.settings.dialogue,
            "draining": self.draining,
        }

    async def apply(self, settings: Settings) -> None:
        """Use new settings from now on, as far as they may change while smsd runs.
        Requests that are being answered keep the old ones.

        Raises SettingsError if the dialogue refuses them; then nothing changes.
        """
        await self.dialogue.reload(settings)  # first: it may refuse, and then nothing has changed
        self.settings = settings
        for application in self._applications:
            application.settings |= cookies.signing_settings(settings)
        self.exchange.policy.apology = settings.apology
        self.exchange.policy.one_moment = settings.one_moment
        self.gate.ring = _ring(settings)
        self.gate.accounts = _accounts(settings)

    async def replace_dialogue(self, dialogue: LoadedDialogue) -> None:
        """Use another dialogue, which is open, from the next message on; close the old
        one."""
        before, self.dialogue = self.dialogue, dialogue
        self.exchange.policy.dialogue = dialogue
        await before.close()

    async def close(self, *, within_s: float = 1.0) -> None:
        """Merge what the overlay still holds, for at most `within_s` seconds, and close
        all."""
        await self.store.close(within_s=within_s)
        await self.dialogue.close()

    def _random_bits(self) -> int:
        return self._draw(32)

    def _store(self, wrap: Callable[[Remote], Remote]) -> Store:
        settings = self.settings
        if settings.store.kind == "cookie":
            return CookieOnly()
        remote: Remote
        if settings.store.kind == "memory":
            remote = Memory(settings.session_ttl_s, self._now_ms)
        else:
            remote = Memcached(
                settings.store.nodes,
                timeout_s=settings.store_timeout_s,
                ttl_s=settings.session_ttl_s,
                now_ms=self._now_ms,
                observer=self.metrics,
                former=settings.store_former or (),
                tls=client_context(settings.store_ca) if settings.store.tls else None,
            )
        return OverlayStore(
            wrap(remote),
            timeout_s=settings.store_timeout_s,
            ttl_s=settings.session_ttl_s,
            now_ms=self._now_ms,
            random_bits=self._random_bits,
            observer=self.metrics,
        )


def _ring(settings: Settings) -> KeyRing:
    return KeyRing(settings.auth_token, settings.auth_token_secondary, settings.accounts)


def _accounts(settings: Settings) -> frozenset[str]:
    """TWILIO_ACCOUNT_SID and the sub-accounts of the accounts file; empty for any
    account."""
    return (
        frozenset((settings.account_sid, *settings.accounts))
        if settings.account_sid
        else frozenset()
    )
