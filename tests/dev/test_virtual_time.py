"""Slow dialogues in tests: sleeping takes virtual time, everything else real time."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from smsd import Message, Session
from smsd.dev.fixture import Phone, phone_for
from smsd.dev.virtual_time import VirtualTimeLoop, is_asleep

MESSAGE = Message("SM" + "0" * 32, "AC" + "0" * 32, "+1", "+2", "hi")
MANY_S = 1000.0  # nobody waits for that: a test that takes it for real does not end in time


@contextmanager
def phone_of(dialogue: Any, environ: Mapping[str, str] | None = None) -> Iterator[Phone]:
    with phone_for(dialogue, environ or {}) as phone:
        yield phone


async def sleepy(message: Message, session: Session) -> str:
    await asyncio.sleep(float(message.body))
    return f"slept {message.body}"


def test_a_dialogue_that_sleeps_is_answered_in_virtual_time() -> None:
    with phone_of(sleepy) as phone:
        real_s, virtual_s = time.monotonic(), phone._thread.clock()
        assert phone.text("9") == "slept 9"
        assert time.monotonic() - real_s < phone.waited_s
        assert 9 <= phone.waited_s < MANY_S
        assert phone._thread.clock() - virtual_s == pytest.approx(30 + phone.waited_s, abs=0.001)


def test_long_dialogue_is_answered_by_redirects() -> None:
    environ = {"SMSD_DIALOGUE_TIMEOUT": "60", "SMSD_ONE_MOMENT": "one moment"}
    with phone_of(sleepy, environ) as phone:
        assert phone.text("40") == "one moment\nslept 40"
        assert phone.hops >= 3
        assert 40 <= phone.waited_s < MANY_S
        first, last = phone.last.replies if phone.last else ()
        assert 12 <= first.after_s < last.after_s == phone.waited_s


def test_a_late_dialogue_is_apologized_for_in_virtual_time() -> None:
    with phone_of(sleepy, {"SMSD_DIALOGUE_TIMEOUT": "8"}) as phone:
        assert "slept" not in str(phone.text(str(MANY_S), failing=True))
        assert 8 <= phone.waited_s < MANY_S


def test_a_quick_dialogue_leaves_the_clock_where_it_was() -> None:
    with phone_of(sleepy) as phone:
        start_s = phone._thread.clock()
        phone.text("0")
        assert phone._thread.clock() - start_s == pytest.approx(30, abs=1e-6)


def test_before_the_first_text_nobody_has_waited() -> None:
    with phone_of(sleepy) as phone:
        assert (phone.waited_s, phone.hops) == (0, 0)


def test_work_in_a_thread_takes_real_time() -> None:
    async def busy(message: Message, session: Session) -> str:
        await asyncio.to_thread(time.sleep, 0.05)
        return "done"

    with phone_of(busy) as phone:
        assert phone.text("go") == "done"
        assert phone._thread.loop.skipped_s == 0


def test_time_is_real_while_any_dialogue_is_busy() -> None:
    async def main() -> tuple[bool, bool, bool]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        sleeps = loop.create_task(asyncio.sleep(MANY_S))
        waits = loop.create_task(asyncio.Event().wait())
        loop.dialogue_started(sleeps)
        await asyncio.sleep(0)
        nobody_waits = loop.may_skip()
        loop.arrived(MESSAGE)
        alone = loop.may_skip()
        loop.dialogue_started(waits)
        both = loop.may_skip()
        loop.answered(MESSAGE)
        for task in (sleeps, waits):
            task.cancel()
        await asyncio.gather(sleeps, waits, return_exceptions=True)
        return nobody_waits, alone, both

    loop = VirtualTimeLoop(lambda _: None)
    try:
        assert loop.run_until_complete(main()) == (False, True, False)
    finally:
        loop.close()


@pytest.mark.asyncio
async def test_a_task_sleeps_if_its_innermost_coroutine_does() -> None:
    async def inner() -> None:
        await asyncio.sleep(MANY_S)

    async def outer() -> None:
        await inner()

    task = asyncio.create_task(outer())
    assert not is_asleep(task), "it has not begun"
    await asyncio.sleep(0)
    assert is_asleep(task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
