"""A real `smsd serve --dev` process for tests, which can be stopped and started again
on the same ports."""

from pathlib import Path
from typing import Self

from tests.processes import SETTINGS, Smsd, free_port


class _DevProcess(Smsd):
    """Listens once its welcome text is there, whatever its dialogue does to the log."""

    def _listening(self) -> bool:
        assert self.process
        assert self.process.poll() is None, f"smsd ended: {self.log()}"
        return "  Metrics " in self.log()[self._log_begins :]


class DevServer:
    """With nothing set up but its ports."""

    def __init__(self, cwd: Path | None = None, **env: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        ports = {
            "SMSD_PORT": str(self.port),
            "SMSD_ADMIN_PORT": str(free_port()),
            "SMSD_DRAIN_DELAY": "0",
        }
        self._env = {**dict.fromkeys(SETTINGS), **ports, **env}
        self._cwd = cwd
        self.process = _DevProcess(self._env, args=("--dev",), cwd=cwd)

    def __enter__(self) -> Self:
        self.process.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.__exit__(None, None, None)

    def again(self) -> None:
        """Start it again, after `process.kill()` or `process.terminate()`."""
        self.__exit__()
        self.process = _DevProcess(self._env, args=("--dev",), cwd=self._cwd)
        self.process.__enter__()
