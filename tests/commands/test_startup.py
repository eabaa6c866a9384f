"""What `smsd serve` costs before its first message: processor time, memory, modules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import raw_http as wire
from tests.processes import Memcached, Smsd

CPU_LIMIT_S = 0.6
RESIDENT_LIMIT_MB = 60
NEVER = (
    "twilio.rest",
    "aiohttp",
    "requests",
    "pytest",
    "smsd.simulator",
    "smsd.dev.dev_service",
    "smsd.dev.live_reload",
    "smsd.testing",
    "smsd.commands.doctor",
    "smsd.commands.keys",
)
TELL_MODULES = """
import os, sys
{imports}
async def reply(message, session):
    with open(os.environ["MODULES_FILE"], "w") as file:
        file.write("\\n".join(sys.modules))
    return "told"
"""
"""A dialogue that tells which modules are imported while it answers."""


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, its own and the kernel's for it, in all
    threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """The most memory it had resident so far."""
    (line,) = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) / 1024


def test_it_starts_within_its_budget_of_time_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """Processor time, not the clock on the wall: a busy machine starts later, but works
    no more."""
    spent: list[tuple[float, float]] = []
    with Memcached() as node:
        for _ in range(3):
            with Smsd({"SMSD_STORE": f"memcached://{node.node}"}) as server:
                spent.append((cpu_s(server.pid), resident_mb(server.pid)))
    least_s, least_mb = min(seconds for seconds, _ in spent), min(mb for _, mb in spent)
    with capsys.disabled():
        print(f"\n[start-up: {least_s:.2f} s of processor time, {least_mb:.0f} MB resident]")
    assert least_s < CPU_LIMIT_S
    assert least_mb < RESIDENT_LIMIT_MB


def test_help_loads_no_server() -> None:
    """What makes `smsd --help` slow is imports; they are counted, not timed."""
    heavy = "{'asyncio', 'tornado', 'uvloop', 'pymemcache', 'twilio', 'ssl', 'pytest'}"
    code = f"import sys, smsd.cli; smsd.cli._parser(); print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("imports", "never"),
    [("", ("twilio", *NEVER)), ("from smsd.dialogues import greeting", NEVER)],
    ids=["own dialogue", "greeting"],
)
def test_production_never_imports_what_it_does_not_need(
    tmp_path: Path, imports: str, never: tuple[str, ...]
) -> None:
    """Asked after a message was answered, so that nothing is imported late either."""
    (tmp_path / "tell.py").write_text(TELL_MODULES.format(imports=imports))
    told = tmp_path / "modules"
    with Memcached() as node:
        env = {
            "SMSD_STORE": f"memcached://{node.node}",
            "SMSD_DIALOGUE": "tell:reply",
            "PYTHONPATH": str(tmp_path),
            "MODULES_FILE": str(told),
        }
        with Smsd(env) as server:
            wire.post(server.address, wire.status(), "/sms/status")
            wire.post(server.address, wire.message(), token="wrong")
            server.admin("/metrics")
            assert b"told" in wire.post(server.address, wire.message()).body
    modules = told.read_text().split()
    assert {"smsd.exchange.exchange", "smsd.store.memcached", "tornado.web", "pymemcache"} <= set(
        modules
    )
    needless = [
        name for name in modules if any(name == bad or name.startswith(f"{bad}.") for bad in never)
    ]
    assert needless == []
