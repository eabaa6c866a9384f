"""Reads settings again while smsd runs: mounted files change when secrets rotate.

It has no thread, no timer and no signal handler: the caller asks `changed()` now and
then, and calls `reload()` if so, or on SIGHUP. It reads no environment; it keeps the
mapping that it was given. A broken version of a file never replaces settings that work.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace

from smsd.settings.table import SETTINGS, Settings, load, paths, throw_away

_Stamp = tuple[tuple[int, ...] | None, ...]


class Reloader:
    """Holds the settings in force. Takes the arguments of `table.load`, and raises the
    same.

    settings        the settings in force
    restart_needed  names of the settings whose new value takes effect after a restart
    """

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
        # Made once: a reload must not change the throw-away secrets.
        self._defaults = {**throw_away(token), **(dev_defaults or {})}
        self._paths = paths(self._environ)
        self._stamp = self._look()
        self.settings = self._load()
        self.restart_needed: tuple[str, ...] = ()

    def changed(self) -> bool:
        """Whether a file has changed since the last `reload()`. Costs one stat for each
        file."""
        return self._look() != self._stamp

    def reload(self) -> Settings | None:
        """Read the files, and return the settings now in force, or None if nothing
        changed.

        Raises `SettingsError` for a broken version. The settings then stay, and
        `changed()` returns False until the files change again.
        """
        new = self._read()
        if self.changed():  # while they were read: half old and half new is neither
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
        self._stamp = self._look()  # before reading: `changed()` then sees a later change
        return self._load()

    def _load(self) -> Settings:
        return load(self._environ, dev=self._dev, dev_defaults=self._defaults)

    def _look(self) -> _Stamp:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: str) -> tuple[int, ...] | None:
    """A value that differs once a file is written, replaced, or linked elsewhere.

    None if there is no such file. Stamps are compared for equality only, so that
    neither a file from the past nor a clock that was set back hides a change.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a path that contains NUL
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
