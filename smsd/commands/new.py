"""`smsd new NAME`: create a project to start from. It must not overwrite anything.

The files are templates in `smsd/commands/template`: `$name` and `$module` become the
project's name and the name of its Python module.
"""

import contextlib
import importlib.util
import json
import keyword
import os
import re
import shlex
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from string import Template
from urllib.parse import unquote, urlsplit

from smsd.dev.environment import program
from smsd.version import VERSION

EXIT_USAGE = 2
DISTRIBUTION = "smsd-twilio"
DEFAULT_MANIFESTS = "../../smsd/deploy/k8s"
MAX_NAME = 40
FILES = {
    "README.md": "README.md.in",
    "pyproject.toml": "pyproject.toml.in",
    "$module.py": "dialogue.py.in",
    "test_$module.py": "test_dialogue.py.in",
    "Dockerfile": "Dockerfile.in",
    ".dockerignore": "dockerignore.in",
    ".gitignore": "gitignore.in",
    "deploy/kustomization.yaml": "kustomization.yaml.in",
    "deploy/settings.env": "settings.env.in",
}
"""Path in the project to the template it is made of."""


def main(name: str, directory: Path | None) -> int:
    """Create the project and say what to do next. The exit code."""
    folder = directory or Path(name)
    problem = name_problem(name) or folder_problem(folder)
    if problem:
        sys.stderr.write(f"smsd new: {problem}\n")
        return EXIT_USAGE
    try:
        create(name, folder)
    except OSError as error:
        sys.stderr.write(f"smsd new: {error.filename} cannot be written: {error.strerror}\n")
        return EXIT_USAGE
    sys.stdout.write(_next_steps(folder))
    return 0


def name_problem(name: str) -> str | None:
    """Why a name cannot be that of a project and its module; None if it can."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > MAX_NAME:
        return (
            "NAME must begin with a letter and may contain lower-case letters, digits and "
            f"single hyphens, at most {MAX_NAME} characters, such as cafe or pizza-bot"
        )
    module = _module(name)
    if keyword.iskeyword(module):
        return f"{name} is a word of the Python language; choose another NAME"
    if module in sys.stdlib_module_names or importlib.util.find_spec(module):
        return f"there is a Python module named {module} already; choose another NAME"
    return None


def folder_problem(folder: Path) -> str | None:
    """Why a project cannot be created there; None if it can."""
    if folder.is_dir() and not any(folder.iterdir()):
        return None
    if os.path.lexists(folder):
        return f"{folder} exists already, and nothing is overwritten; choose another NAME or --directory"
    return None


def create(name: str, folder: Path) -> None:
    """Write the files. OSError if one cannot be written."""
    checkout = find_checkout()
    manifests = checkout / "deploy" / "k8s" if checkout else None
    values = {
        "name": name,
        "module": _module(name),
        "smsd_version": VERSION,
        "smsd_source": shlex.quote(_relative(checkout, folder)) if checkout else DISTRIBUTION,
        "manifests": _relative(manifests, folder / "deploy") if manifests else DEFAULT_MANIFESTS,
    }
    templates = files("smsd") / "commands" / "template"
    for target, template in FILES.items():
        path = folder / Template(target).substitute(values)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (templates / template).read_text("utf-8")
        with path.open("x", encoding="utf-8") as file:
            file.write(Template(text).substitute(values))


def find_checkout() -> Path | None:
    """The checkout of smsd that runs or was installed from, if it is still there."""
    candidates = [Path(__file__).parents[2]]
    with contextlib.suppress(metadata.PackageNotFoundError):
        # PEP 610: pip notes the folder that it installed from
        noted = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        url = urlsplit(json.loads(noted)["url"] if noted else "")
        if url.scheme == "file":
            candidates.append(Path(unquote(url.path)))
    return next((path for path in candidates if (path / "deploy" / "k8s").is_dir()), None)


def _module(name: str) -> str:
    return name.replace("-", "_")


def _relative(path: Path, start: Path) -> str:
    """The way from one folder to another, symbolic links resolved: kustomize resolves
    them too."""
    return os.path.relpath(path.resolve(), start.resolve())


def _next_steps(folder: Path) -> str:
    return (
        f"Created {folder}. Now:\n\n"
        f"  cd {shlex.quote(str(folder))}\n"
        f"  {program()} serve --dev      # then open the phone page that it prints, and text\n\n"
        "README.md there says how to test and deploy it.\n"
    )
