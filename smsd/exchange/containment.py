"""Contains the tasks that a dialogue starts by itself.

Knows no message and no store; no network. A task that raises SystemExit or
KeyboardInterrupt ends the event loop, and with it the process. In a task that was
started while a dialogue ran, that is user code: it must fail alone.
"""

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any

from smsd.errors import UserCodeError

in_dialogue: ContextVar[bool] = ContextVar("in_dialogue", default=False)
"""Set in the task of a dialogue; tasks inherit it from whoever starts them."""


def task_factory(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **options: Any,
) -> asyncio.Task[Any]:
    """For `loop.set_task_factory`."""
    if in_dialogue.get() and asyncio.iscoroutine(coro):
        coro = _contained(coro)
    return asyncio.Task(coro, loop=loop, **options)


async def _contained(coro: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coro
    except (SystemExit, KeyboardInterrupt) as error:
        raise UserCodeError(f"{type(error).__name__} in a task of a dialogue") from error
