"""The command line: arguments and exit codes.

Contains no logic of its own. Each command imports what it needs when it runs, so that
`smsd --help` stays quick.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from smsd import descriptors
from smsd.version import VERSION

EXIT_PROBLEM = 1
EXIT_USAGE = 2
DISTRIBUTION = "smsd-twilio"
SECRET_NAME = "smsd-secrets"  # noqa: S105 - a name, no secret
NAMESPACE = "smsd"

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - argparse has no public name for it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    descriptors.open_standard_streams()
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="smsd",
        description="Turns text messages into conversations: "
        "answers Twilio's messaging webhook and remembers who said what.",
        epilog="Settings are environment variables; docs/settings.md lists them.",
    )
    parser.add_argument(
        "--version", action="version", version=f"smsd {VERSION} (distribution {DISTRIBUTION})"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_new(commands)
    _add_phone(commands)
    _add_doctor(commands)
    _add_keys(commands)
    _add_routes(commands)
    return parser


def _add_serve(commands: _Commands) -> None:
    parser = commands.add_parser(
        "serve",
        help="run the server; with --dev there is nothing to set up",
        description="Answer Twilio's webhooks until SIGTERM. If a setting is missing or wrong, "
        "say so and exit with 2 before listening.",
    )
    parser.add_argument(
        "--dev",
        action="store_true",
        help="for development: throw-away secrets, a phone page, live reload of the dialogue",
    )
    parser.add_argument("--host", help="address to listen on (SMSD_HOST)")
    parser.add_argument("--port", help="port of the public listener (SMSD_PORT)")
    parser.add_argument("--admin-port", help="port of the admin listener (SMSD_ADMIN_PORT)")
    parser.add_argument(
        "--log-format", metavar="FORMAT", help="json, text or pretty (SMSD_LOG_FORMAT)"
    )
    parser.set_defaults(command=_serve)


def _add_new(commands: _Commands) -> None:
    parser = commands.add_parser(
        "new",
        help="create a project: a dialogue, its tests, a Dockerfile, a kustomization",
        description="Create a project to start from, in a new folder. Nothing is overwritten.",
    )
    parser.add_argument("name", metavar="NAME", help="such as cafe; letters, digits and hyphens")
    parser.add_argument(
        "--directory", metavar="DIR", help="where to create it (default: ./NAME)", type=Path
    )
    parser.set_defaults(command=_new)


def _add_phone(commands: _Commands) -> None:
    parser = commands.add_parser(
        "phone",
        help="a phone in the terminal that acts as Twilio does",
        description="Text a running smsd the way Twilio would. "
        "`smsd serve --dev` tells the phone its token; any other server's token comes from "
        "TWILIO_AUTH_TOKEN or is asked for.",
    )
    parser.add_argument("url", metavar="URL", help="such as http://127.0.0.1:8080")
    parser.add_argument(
        "--send", metavar="TEXT", help="send one message; exit 0 if a reply came, 1 if not"
    )
    parser.add_argument(
        "--from", dest="from_", metavar="NUMBER", default="+14158675309", help="who texts"
    )
    parser.add_argument("--to", metavar="NUMBER", default="+14158141829", help="the number texted")
    parser.add_argument("--account", metavar="SID", help="AccountSid (TWILIO_ACCOUNT_SID)")
    parser.add_argument(
        "--public-url", metavar="URL", help="the service's SMSD_PUBLIC_URL, if it is not URL"
    )
    parser.set_defaults(command=_phone)


def _add_doctor(commands: _Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check settings, memcached and keys; print what to enter at Twilio",
        description="Check everything that `serve` needs, and print what to enter at Twilio. "
        "Exit 1 if anything is wrong.",
    )
    parser.add_argument(
        "--call",
        action="store_true",
        help="also request SMSD_PUBLIC_URL as Twilio would: does this smsd answer there?",
    )
    parser.set_defaults(command=_doctor)


def _add_keys(commands: _Commands) -> None:
    parser = commands.add_parser(
        "keys",
        help="make fresh SMSD_COOKIE_KEYS and SMSD_HASH_KEY",
        description="Print fresh secrets, as settings or as a Kubernetes Secret manifest. Make them "
        "once and keep them: a new SMSD_HASH_KEY ends all conversations.",
        allow_abbrev=False,  # `--token SECRET` must not pass for --token-file
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="write to a new file that only you can read; never replaces one",
    )
    parser.add_argument("--kubernetes", action="store_true", help="make a Secret manifest")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="file that holds TWILIO_AUTH_TOKEN, - for standard input (with --kubernetes)",
    )
    parser.add_argument(
        "--name", help=f"name of the Secret (with --kubernetes; default {SECRET_NAME})"
    )
    parser.add_argument(
        "--namespace", help=f"namespace of the Secret (with --kubernetes; default {NAMESPACE})"
    )
    parser.set_defaults(command=_keys, parser=parser)


def _add_routes(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "routes",
        help="list the routes of a router",
        description="List the routes of a router in the order in which it asks them. "
        "Needs no settings. Exit 2 if the router cannot be imported or has mistaken routes.",
    )
    parser.add_argument("router", metavar="MODULE:ROUTER", help="such as mybot:router")
    parser.set_defaults(command=_routes)


def _serve(arguments: argparse.Namespace) -> int:
    from smsd.commands import serve

    given = {
        "SMSD_HOST": arguments.host,
        "SMSD_PORT": arguments.port,
        "SMSD_ADMIN_PORT": arguments.admin_port,
        "SMSD_LOG_FORMAT": arguments.log_format,
    }
    environ = {**os.environ, **{name: value for name, value in given.items() if value is not None}}
    return serve.main(environ, dev=arguments.dev)


def _new(arguments: argparse.Namespace) -> int:
    from smsd.commands import new

    return new.main(arguments.name, arguments.directory)


def _phone(arguments: argparse.Namespace) -> int:
    from smsd.dev import terminal

    return terminal.main(
        arguments.url,
        send=arguments.send,
        from_=arguments.from_,
        to=arguments.to,
        account=arguments.account,
        public_url=arguments.public_url,
        environ=os.environ,
    )


def _doctor(arguments: argparse.Namespace) -> int:
    from smsd.commands import doctor

    return EXIT_PROBLEM if doctor.main(os.environ, sys.stdout, call=arguments.call) else 0


def _routes(arguments: argparse.Namespace) -> int:
    from smsd.commands import routes

    return routes.main(arguments.router, sys.stdout)


def _keys(arguments: argparse.Namespace) -> int:
    from smsd.commands import keys

    if not arguments.kubernetes:
        for option in ("token_file", "name", "namespace"):
            if getattr(arguments, option) is not None:
                flag = "--" + option.replace("_", "-")
                arguments.parser.error(f"{flag} is for a Secret manifest: add --kubernetes")
        return keys.make_settings(arguments.output)
    return keys.make_manifest(
        arguments.output,
        token_file=arguments.token_file,
        name=arguments.name or SECRET_NAME,
        namespace=arguments.namespace or NAMESPACE,
        environ=os.environ,
    )
