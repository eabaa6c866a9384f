"""Loads the dialogue anew when its source changes: for the development server only.

Watched are the Python files in the folders of the dialogue's own modules: those loaded from where its top package
lies, but nothing installed in site-packages and nothing of smsd but `smsd.dialogues`. Has no timer: the caller asks
`changed()` now and then.
"""

import importlib
import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from smsd.dialogues import loading as dialogue
from smsd.errors import SettingsError

_Stamp = dict[Path, tuple[int, int]]


class Source:
    """The source of the dialogue `spec`, which is loaded."""

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
        """Whether edits take effect: not for a copy in site-packages, nor for smsd's own modules."""
        module = self._spec.partition(":")[0]
        return _is_source(module, sys.modules[module])

    @property
    def is_installed_copy(self) -> bool:
        """Whether the dialogue comes from site-packages, so that edits of its source are not seen."""
        return bool({"site-packages", "dist-packages"}.intersection(self.file.parts))

    def changed(self) -> bool:
        """Whether a file was written, came or went since the last `load`. One stat for each, nothing is read."""
        return self._look() != self._stamp

    async def load(self, settings: object) -> dialogue.LoadedDialogue:
        """The dialogue as its files now have it, opened. SettingsError, and the modules as before, if they are
        broken.
        """
        self._stamp = (
            self._look()
        )  # before reading: what changes meanwhile is seen by the next `changed()`
        before = self._own()
        _forget(before)
        try:
            loaded = dialogue.load(self._spec, settings)
            await loaded.open()
        except SettingsError:
            _forget(self._own())
            sys.modules.update(before)
            raise
        self._folders |= {_file(module).parent for module in self._own().values()}
        return loaded

    def _own(self) -> dict[str, ModuleType]:
        """The dialogue's modules, as loaded now."""
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
    """Where the top package of `module` lies; for a module on its own, its folder."""
    folder = _file(module).parent
    depth = module.__name__.count(".") + hasattr(module, "__path__")
    return folder.parents[depth - 1] if depth else folder


def _is_source(name: str, module: ModuleType) -> bool:
    """Whether it may be loaded again: it has a file, is not installed, and smsd does not hang on it."""
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
    """Let the next import read the source, not what was compiled of it: two versions may be of the same second."""
    importlib.invalidate_caches()
    for name, module in modules.items():
        del sys.modules[name]
        with suppress(OSError):
            os.unlink(importlib.util.cache_from_source(str(_file(module))))
