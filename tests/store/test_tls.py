"""`memcacheds://` against real memcached processes that speak TLS, with certificates of
the tests' own authority.
"""

import datetime as dt
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trustme

from smsd.commands.nodes import tls_problem
from smsd.simulator import LOST
from smsd.store import KINDS
from smsd.store.connection import client_context
from smsd.store.node import Node, flush
from tests.faults.history import Recorder
from tests.faults.world import number, settled
from tests.observer import Told
from tests.processes import Memcached, Smsd, wait_for
from tests.store.test_lookup import addresses
from tests.store.test_node import KEY, fails, until

pytestmark = pytest.mark.asyncio

AUTHORITY = trustme.CA()
PEM = AUTHORITY.cert_pem.bytes().decode()


@contextmanager
def memcached(
    directory: Path, *names: str, expired: bool = False, authority: trustme.CA = AUTHORITY
) -> Iterator[Memcached]:
    """A memcached with a certificate for these names."""
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    certificate = authority.issue_cert(*names, not_after=yesterday if expired else None)
    chain, key = directory / "chain.pem", directory / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    for path in (directory, *directory.parents):
        if path.stat().st_uid and path != Path("/"):
            path.chmod(0o755)
    trusting = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    trusting.check_hostname = False  # only to look whether it is up
    trusting.verify_mode = ssl.CERT_NONE
    options = ("-Z", "-o", f"ssl_chain_cert={chain},ssl_key={key}")
    with Memcached(*options, tls=trusting) as made:
        yield made


@asynccontextmanager
async def connected(
    memcached: Memcached, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Node, Told]]:
    told = Told()
    node = Node(f"{host}:{memcached.port}", 5, told, tls=tls or client_context(PEM))
    try:
        yield node, told
    finally:
        await node.close()


async def test_node_is_read_and_written_over_tls(tmp_path: Path) -> None:
    with memcached(tmp_path, "127.0.0.1") as made:
        async with connected(made) as (node, told):
            assert await node.save(KEY, b"x" * 300_000, None, 60)
            read = await node.load(KEY)
            assert read.value == b"x" * 300_000
            assert await node.save(KEY, b"two", read.token, 60)
            await node.flush()
            assert (await node.load(KEY)).value is None
            assert not told.errors


async def test_name_may_end_in_a_dot(tmp_path: Path) -> None:
    with memcached(tmp_path, "memcached.test") as made:
        here, name = addresses("127.0.0.1", port=made.port), f"memcached.test.:{made.port}"
        node = Node(name, 5, Told(), tls=client_context(PEM), resolver=lambda *_: here)
        assert (await node.load(KEY)).value is None
        await node.close()


async def test_restarted_node_is_reached_again_over_tls(tmp_path: Path) -> None:
    with memcached(tmp_path, "127.0.0.1") as made:
        async with connected(made) as (node, told):
            assert await node.save(KEY, b"one", None, 60)
            made.kill()
            made.start()
            assert (await node.load(KEY)).value is None
            assert not told.errors


async def is_refused(
    memcached: Memcached, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> None:
    """The node goes down for a fault of TLS, and stays so."""
    async with connected(memcached, host=host, tls=tls) as (node, told):
        await fails(node.load(KEY))
        await until(lambda: told.errors[node.name, "tls"] >= 2)
        assert told.outages == [(node.name, "tls", None)]


def problem(node: Memcached, tls: ssl.SSLContext, host: str = "127.0.0.1") -> str | None:
    with pytest.raises(ssl.SSLError) as caught:
        flush(f"{host}:{node.port}", 5, tls)
    return tls_problem(caught.value)


async def test_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    with memcached(tmp_path, "memcached.example.com") as node:
        await is_refused(node, host="localhost")
        assert "another name" in str(problem(node, client_context(PEM), "localhost"))
        await is_refused(node)
        assert "not for this address" in str(problem(node, client_context(PEM)))


async def test_certificate_of_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    with memcached(tmp_path, "127.0.0.1", authority=trustme.CA()) as node:
        await is_refused(node)
        assert "SMSD_STORE_CA" in str(problem(node, client_context(PEM)))


async def test_system_authorities_are_trusted_by_default(tmp_path: Path) -> None:
    with memcached(tmp_path, "127.0.0.1") as node:
        await is_refused(node, tls=client_context(None))
        assert "SMSD_STORE_CA" in str(problem(node, client_context(None)))


async def test_expired_certificate_is_refused(tmp_path: Path) -> None:
    with memcached(tmp_path, "127.0.0.1", expired=True) as node:
        await is_refused(node)
        assert problem(node, client_context(PEM)) == "its certificate has expired"


async def test_plain_node_is_an_outage_when_tls_is_required() -> None:
    with Memcached() as made:
        async with connected(made) as (node, _told):
            assert await fails(node.load(KEY)) in {"tls", "closed"}
            assert not node.is_up
        assert "TLS handshake failed" in str(problem(made, client_context(PEM)))


async def test_tls_node_is_an_outage_without_tls(tmp_path: Path) -> None:
    with memcached(tmp_path, "127.0.0.1") as made:
        node = Node(made.node, 5, Told())
        assert await fails(node.load(KEY)) in KINDS
        assert not node.is_up
        await node.close()


async def test_tls_problem_ignores_other_errors() -> None:
    assert tls_problem(ConnectionRefusedError()) is None
    assert tls_problem(TimeoutError()) is None
    unheard_of = ssl.SSLCertVerificationError()
    unheard_of.verify_code, unheard_of.verify_message = 99, "unheard of"
    assert tls_problem(unheard_of) == "its certificate is refused: unheard of"
    nameless = ssl.SSLError()
    nameless.reason = ""
    assert "handshake failed" in str(tls_problem(nameless))


async def test_smsd_counts_over_tls_or_degrades_without_trust(tmp_path: Path) -> None:
    """One replica with the right SMSD_STORE_CA, one that trusts the system's
    authorities.
    """

    authorities = tmp_path / "authorities.pem"
    authorities.write_text(PEM)
    with memcached(tmp_path, "127.0.0.1") as node:
        env = {"SMSD_STORE": f"memcacheds://{node.node}"}
        with (
            Smsd({**env, "SMSD_STORE_CA": str(authorities)}) as trusting,
            Smsd(env) as doubting,
        ):
            wait_for(lambda: not settled(doubting), "the certificate is refused")
            async with Recorder([trusting, doubting]) as twilio:
                from_ = number()
                for _ in range(3):
                    await twilio.text(from_, trusting, LOST)
                await twilio.text(from_, doubting)
                await twilio.text(from_, trusting)
                assert twilio.violations() == []
            assert trusting.metric('smsd_messages_total{outcome="counted"}') == 4
            assert doubting.metric('smsd_messages_total{outcome="degraded"}') == 1
            assert '"kind":"tls"' in doubting.log()
