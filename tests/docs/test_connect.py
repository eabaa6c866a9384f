"""The commands of docs/twilio.md, "Connect a number", in the page's order and in one
shell."""

import os
import subprocess
import sys
from pathlib import Path

from docs.tools.pages import page

PAGE = page("docs/twilio.md")


def test_doctor_is_content_after_the_steps_of_the_page(tmp_path: Path) -> None:
    make_keys, load_settings, check = [block.text for block in PAGE.blocks("sh")]
    (settings,) = [block.text for block in PAGE.blocks("ini")]
    script = f"{make_keys}\ncat >> smsd.env <<'END'\n{settings}END\n{load_settings}\n{check}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env={"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "https://sms.example.com/sms" in done.stdout
    assert (tmp_path / "smsd.env").stat().st_mode & 0o077 == 0
