"""Settings that change while smsd runs: which files they come from, whether one changed, what takes effect.

Has no thread, no timer and no signal handler: the caller asks `changed()` now and then, and calls `reload()`
then and on SIGHUP. Reads no environment: it keeps the mapping that it got.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace

from smsd.settings.table import SETTINGS, Settings, load, paths, throw_away

_Stamp = tuple[tuple[int, ...] | None, ...]


class Reloader:
    """`settings` are those in force. Takes the arguments of `settings.load` and raises what that raises."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        dev: bool = False,
        token: Callable[[], str] = secrets.token_hex,
        dev_defaults: Mapping[str, str] | None = None,
    ) -> None:
        self._environ = dict(environ)
        self._dev = dev
        # drawn once: a reload must not change the throw-away secrets
        self._defaults = {**throw_away(token), **(dev_defaults or {})}
        self._paths = paths(self._environ)
        self._stamp = self._look()
        self.settings = self._load()
        self.restart_needed: tuple[str, ...] = ()

    def changed(self) -> bool:
        """Whether a file is not as it was at the last `reload()`. One stat for each file, nothing is read."""
        return self._look() != self._stamp

    def reload(self) -> Settings | None:
        """The settings now in force, or None if they are as before.

        Raises `SettingsError` for a broken version: the settings stay, and `changed()` is silent until the
        files change again. `restart_needed` names the settings whose new value waits for a restart.
        """
        new = self._read()
        if (
            self.changed()
        ):  # while it was read: half of the old version and half of the new one is neither
            new = self._read()
        waiting = [
            setting
            for setting in SETTINGS
            if not setting.live
            and getattr(new, setting.field) != getattr(self.settings, setting.field)
        ]
        self.restart_needed = tuple(setting.name for setting in waiting)
        kept = ["warnings", *(setting.field for setting in waiting)]
        new = replace(new, **{name: getattr(self.settings, name) for name in kept})
        if new == self.settings:
            return None
        self.settings = new
        return new

    def _read(self) -> Settings:
        self._stamp = (
            self._look()
        )  # before reading: what changes meanwhile is seen by the next `changed()`
        return self._load()

    def _load(self) -> Settings:
        return load(self._environ, dev=self._dev, dev_defaults=self._defaults)

    def _look(self) -> _Stamp:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: str) -> tuple[int, ...] | None:
    """Differs once a file is written, replaced, or reached by another symbolic link. None: not there."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a path with a NUL in it
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
