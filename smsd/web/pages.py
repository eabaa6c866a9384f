"""Pages that are no webhooks: the admin listener's four, /healthz, and 404.

They are ordinary Tornado handlers. A refusal has an empty body.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from tornado.routing import Rule
from tornado.web import Application, HTTPError, RequestHandler

from smsd.telemetry import logs
from smsd.telemetry.metrics import Metrics
from smsd.web.admission import Admission
from smsd.web.refusals import Refusals

Page = Callable[[RequestHandler], None]

log = logging.getLogger("smsd.http")


class _Handler(RequestHandler):
    """Errors have no body and no trace; 405 names the methods that are allowed."""

    def write_error(self, status_code: int, **_: Any) -> None:
        """Write the answer to a request that is refused."""
        self.clear()
        self.set_status(status_code)
        if status_code == 405:
            self.set_header("Allow", "GET, HEAD")
        self.finish()

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:  # noqa: ARG002 - Tornado's names
        """Tornado would log the request with its headers and the client's address."""
        if not isinstance(value, HTTPError):
            logs.event(log, logging.ERROR, "request failed", handler="other", error=value)


class _PageHandler(_Handler):
    """GET and HEAD of one page. Probes and scrapes are not counted as requests."""

    def initialize(self, page: Page, refusals: Refusals) -> None:
        """Tornado's way of writing `__init__`."""
        self._page = page
        self._refusals = refusals

    def get(self) -> None:
        """Show the page in its latest state."""
        self.set_header("Cache-Control", "no-store")
        self._page(self)

    head = get

    def write_error(self, status_code: int, **more: Any) -> None:
        """Write and report the answer to a request that is refused."""
        if status_code == 405:
            self._refusals.refuse("method")
        super().write_error(status_code, **more)

    def compute_etag(self) -> None:
        """No ETag: pages are never cached."""


class _NotFound(_Handler):
    """Every path that is not served."""

    def initialize(self, metrics: Metrics, refusals: Refusals, admission: Admission) -> None:
        """Begin to time it: `prepare` is left out for a method that Tornado refuses."""
        self._metrics = metrics
        self._refusals = refusals
        self._admission = admission
        admission.arrive()

    def prepare(self) -> None:
        """Refuse it."""
        raise HTTPError(404)

    def write_error(self, status_code: int, **more: Any) -> None:
        """Write and report the answer. Scanners ask for many paths; Twilio signs what
        it asks."""
        is_twilio = "X-Twilio-Signature" in self.request.headers
        self._refusals.refuse("not_found", level=logging.WARNING if is_twilio else logging.INFO)
        super().write_error(status_code, **more)

    def on_finish(self) -> None:
        """Count it."""
        self._admission.leave()
        self._metrics.took("other", self.get_status(), self.request.request_time())


def application(
    pages: Mapping[str, Page],
    metrics: Metrics,
    refusals: Refusals,
    admission: Admission,
    extra: list[Rule | tuple[Any, ...]] | None = None,
    **settings: Any,
) -> Application:
    """A Tornado application of `extra` rules and of these pages, by pattern of path.

    `settings` are Tornado's.
    """
    shared = {"refusals": refusals}
    return Application(
        [
            *(extra or []),
            *((path, _PageHandler, {"page": page, **shared}) for path, page in pages.items()),
        ],
        default_handler_class=_NotFound,
        default_handler_args={"metrics": metrics, "admission": admission, **shared},
        log_function=lambda _handler: None,  # events are logged where they happen
        **settings,
    )


def admin_pages(
    metrics: Metrics, *, is_ready: Callable[[], bool], status: Callable[[], dict[str, object]]
) -> dict[str, Page]:
    """What Prometheus, the kubelet and people ask for."""

    def expose(handler: RequestHandler) -> None:
        text, content_type = metrics.expose(handler.request.headers.get("Accept", ""))
        handler.set_header("Content-Type", content_type)
        handler.finish(text)

    def show_status(handler: RequestHandler) -> None:
        handler.set_header("Content-Type", "application/json")
        handler.finish(msgspec.json.encode(status()) + b"\n")

    return {
        "/metrics": expose,
        "/livez": lambda handler: _say(handler, "alive"),
        "/readyz": readiness(is_ready),
        "/status": show_status,
    }


def readiness(is_ready: Callable[[], bool]) -> Page:
    """200, or 503 while smsd drains."""

    def page(handler: RequestHandler) -> None:
        handler.set_status(200 if is_ready() else 503)
        _say(handler, "ready" if is_ready() else "draining")

    return page


def _say(handler: RequestHandler, word: str) -> None:
    handler.set_header("Content-Type", "text/plain; charset=utf-8")
    handler.finish(f"{word}\n")
