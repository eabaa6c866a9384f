"""Loads a dialogue again when its source changes. For the development server only.

It has no timer: the caller asks `changed()` now and then. It must not load again what
is installed in site-packages, nor smsd itself, apart from the built-in dialogues.

The idea: the dialogue's own modules are those that were loaded from the folder of its
top package. A change of any Python file in their folders makes the next `load` forget
all of them and import them again. If that fails, the old modules are put back.
"""

import importlib
import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from smsd.dialogues import loading
from smsd.errors import SettingsError

_Stamp = dict[Path, tuple[int, int]]


class Source:
    """The source of the dialogue `spec` ("module:callable"), which must be loaded
    already."""

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._base = _base(sys.modules[spec.partition(":")[0]])
        self._folders = {_file(module).parent for module in self._own().values()}
        self._stamp = self._look()

    @property
    def file(self) -> Path:
        """The file that defines the dialogue."""
        return _file(sys.modules[self._spec.partition(":")[0]])

    @property
    def is_reloadable(self) -> bool:
        """Whether edits take effect: not for a copy in site-packages, nor for smsd's
        own modules."""
        module = self._spec.partition(":")[0]
        return _is_source(module, sys.modules[module])

    @property
    def is_installed_copy(self) -> bool:
        """Whether the dialogue comes from site-packages, so that edits of its source
        are not seen."""
        return bool({"site-packages", "dist-packages"}.intersection(self.file.parts))

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
    installed = {"site-packages", "dist-packages"}.intersection(_file(module).parts)
    return (
        bool(getattr(module, "__file__", None))
        and not ours
        and not installed
        and name != "__main__"
    )


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
