"""Loads a dialogue again when its source changes. For the development server only.

It must not load again what is installed in site-packages, nor smsd itself, apart from
the built-in dialogues.

The idea: the dialogue's own modules are those that were loaded from the folder of its
top package. A change of any Python file in their folders makes the next `load` forget
all of them and import them again. If that fails, the old modules are put back.
"""

import asyncio
import importlib
import importlib.util
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from smsd.app import Service
from smsd.clock import now_ms
from smsd.dev.failures import show, traceback_text
from smsd.dialogues import loading
from smsd.errors import SettingsError
from smsd.telemetry import logs

LOOK_EVERY_S = 0.5
_Stamp = dict[Path, tuple[int, int]]

log = logging.getLogger("smsd.dev.live_reload")


class LiveReload:
    """Keeps a service at the newest version of its dialogue that can be loaded.

    source     the dialogue's source, which is watched
    loaded_ms  when the running version was loaded, in milliseconds since 1970
    refused    why the version on disk was refused, with the traceback; None if it runs
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.source = Source(service.settings.dialogue)
        self.loaded_ms = now_ms()
        self.refused: str | None = None

    async def run(self) -> None:
        """Load the dialogue again whenever its source changes, without end.

        If the new version cannot be loaded, the old one keeps answering.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self.source.changed():
                await self._load()

    async def _load(self) -> None:
        settings = self._service.settings
        try:
            loaded = await self.source.load(settings)
        except SettingsError as error:
            self.refused = "\n".join(error.problems)
            if error.__cause__:
                self.refused += "\n\n" + traceback_text(error.__cause__)
            logs.event(log, logging.ERROR, "dialogue not reloaded", problems=list(error.problems))
            show(
                "The new version of the dialogue cannot be loaded; the old one keeps answering:\n"
                f"{self.refused}"
            )
            return
        self.refused = None
        self.loaded_ms = now_ms()
        await self._service.replace_dialogue(loaded)
        logs.event(log, logging.INFO, "dialogue reloaded", dialogue=settings.dialogue)


class Source:
    """The source of the dialogue `spec` ("module:callable"), which must be loaded
    already."""

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._module_name = spec.partition(":")[0]
        self._base = _base(self._module)
        self._folders = {_file(module).parent for module in self._own().values()}
        self._stamp = self._look()

    @property
    def file(self) -> Path:
        """The file that defines the dialogue."""
        return _file(self._module)

    @property
    def is_reloadable(self) -> bool:
        """Whether edits take effect: not for a copy in site-packages, nor for smsd's
        own modules."""
        return _is_source(self._module_name, self._module)

    @property
    def is_installed_copy(self) -> bool:
        """Whether the dialogue comes from site-packages, so that edits of its source
        are not seen."""
        return _is_installed(self._module)

    @property
    def _module(self) -> ModuleType:
        return sys.modules[self._module_name]

    def changed(self) -> bool:
        """Whether a file was written, added or removed since the last `load`. Reads no
        file."""
        return self._look() != self._stamp

    async def load(self, settings: object) -> loading.LoadedDialogue:
        """Load and open the dialogue again. Raises SettingsError if it is broken."""
        # before reading: `changed()` then sees what is written meanwhile
        self._stamp = self._look()
        before = self._own()
        _forget(before)
        try:
            loaded = loading.load(self._spec, settings)
            await loaded.open()
        except SettingsError:
            _forget(self._own())
            sys.modules.update(before)
            raise
        self._folders |= {_file(module).parent for module in self._own().values()}
        return loaded

    def _own(self) -> dict[str, ModuleType]:
        """The dialogue's own modules that are loaded now."""
        return {
            name: module
            for name, module in sys.modules.items()
            if _is_source(name, module) and _file(module).is_relative_to(self._base)
        }

    def _look(self) -> _Stamp:
        found: _Stamp = {}
        for folder in self._folders:
            with suppress(OSError):  # the folder is gone, or a file between listing and stat
                for file in folder.glob("*.py"):
                    status = file.stat()
                    found[file] = status.st_mtime_ns, status.st_size
        return found


def _base(module: ModuleType) -> Path:
    """The folder that contains the module, or its top package."""
    folder = _file(module).parent
    depth = module.__name__.count(".") + hasattr(module, "__path__")
    return folder.parents[depth - 1] if depth else folder


def _is_source(name: str, module: ModuleType) -> bool:
    """Whether a module may be loaded again: it has a file, and is neither installed nor
    smsd's."""
    top, _, below = name.partition(".")
    ours = top == "smsd" and below not in ("dialogues.greeting", "dialogues.directory")
    has_file = bool(getattr(module, "__file__", None))
    return has_file and not ours and not _is_installed(module) and name != "__main__"


def _is_installed(module: ModuleType) -> bool:
    return bool({"site-packages", "dist-packages"}.intersection(_file(module).parts))


def _file(module: ModuleType) -> Path:
    return Path(getattr(module, "__file__", None) or "").absolute()


def _forget(modules: dict[str, ModuleType]) -> None:
    """Make the next import read the source.

    The compiled files go too: two versions of a source may have the same second and
    size, and Python would take the old compiled file for the new one's.
    """
    importlib.invalidate_caches()
    for name, module in modules.items():
        del sys.modules[name]
        with suppress(OSError):
            os.unlink(importlib.util.cache_from_source(str(_file(module))))
