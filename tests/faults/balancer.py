"""A load balancer as a Kubernetes Service with an ingress before it is one: it asks for
readiness, sends new requests to replicas that are ready, and keeps connections open as
long as the replica lets it.

It never repeats a request: whatever a replica drops is a failed request.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from random import Random
from typing import Self
from urllib.parse import urlsplit

from tornado.httpclient import HTTPError
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from smsd.simulator import Failure, Request, Response
from tests.processes import Smsd

PROBE_EVERY_S = 0.1


class _Connection:
    """One kept HTTP/1.1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.closed = False

    async def exchange(self, request: Request) -> Response:
        """The answer. OSError or EOFError if the connection ends before it is there."""
        url = urlsplit(request.url)
        target = f"{url.path}?{url.query}" if url.query else url.path
        lines = [f"{request.method} {target} HTTP/1.1", "Host: sms.example.com"]
        lines += [f"{name}: {value}" for name, value in request.headers]
        lines += [f"Content-Length: {len(request.body)}", "", ""]
        self._writer.write("\r\n".join(lines).encode("latin-1") + request.body)
        status, *fields = (
            (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        )
        headers = [
            (name, value.strip())
            for name, _, value in (line.partition(":") for line in fields if line)
        ]
        told = {name.lower(): value for name, value in headers}
        body = await self._reader.readexactly(int(told.get("content-length", "0")))
        if told.get("connection", "").lower() == "close":
            self.close()
        return Response(int(status.split()[1]), headers, body)

    @property
    def ended(self) -> bool:
        """Whether the other side has hung up while nobody was asking."""
        return self.closed or self._reader.at_eof()

    def close(self) -> None:
        self.closed = True
        self._writer.close()


class Balancer:
    """Over replicas that come and go. `kept` connections are used again; otherwise each
    request has its own."""

    def __init__(self, replicas: Sequence[Smsd], *, kept: bool, seed: int = 1) -> None:
        self._replicas = list(replicas)
        self._kept = kept
        self._random = Random(seed)
        self._ready: set[int] = set()
        self._idle: dict[int, list[_Connection]] = {}
        self._http = SimpleAsyncHTTPClient(force_instance=True)
        self._prober: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._probe_all()
        self._prober = asyncio.create_task(self._probe_for_ever())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._prober
        self._prober.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._prober
        self._http.close()
        for idle in self._idle.values():
            for connection in idle:
                connection.close()

    def is_ready(self, replica: Smsd) -> bool:
        return replica.port in self._ready

    async def perform(self, request: Request) -> Response | Failure:
        """One request to one replica."""
        port = self._random.choice(sorted(self._ready))
        try:
            connection = await self._connection(port)
            answer = await connection.exchange(request)
        except (OSError, EOFError) as error:
            return Failure("closed", repr(error))
        if self._kept and not connection.closed:
            self._idle.setdefault(port, []).append(connection)
        else:
            connection.close()
        return answer

    async def _connection(self, port: int) -> _Connection:
        idle = self._idle.get(port, [])
        while idle:
            connection = idle.pop()
            if not connection.ended:
                return connection
            connection.close()
        return _Connection(*await asyncio.open_connection("127.0.0.1", port))

    async def _probe_for_ever(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            await self._probe_all()

    async def _probe_all(self) -> None:
        ready = {replica.port for replica in self._replicas if await self._probe(replica)}
        for port in self._ready - ready:  # what is idle is closed, what is under way is finished
            for connection in self._idle.pop(port, []):
                connection.close()
        self._ready = ready

    async def _probe(self, replica: Smsd) -> bool:
        with contextlib.suppress(OSError, HTTPError):
            await self._http.fetch(
                f"http://127.0.0.1:{replica.admin_port}/readyz", request_timeout=10
            )
            return True
        return False
