"""The command line: arguments and exit codes, nothing else. What a command needs is imported when it runs."""

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from smsd.version import VERSION

EXIT_PROBLEM = 1
EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="smsd",
        description="Turns text messages into conversations: answers Twilio's messaging webhook, and remembers.",
        epilog="Settings are environment variables; the README has the table.",
    )
    parser.add_argument("--version", action="version", version=f"smsd {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_phone(commands)
    _add_doctor(commands)
    _add_keys(commands)
    return parser


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "serve",
        help="the server; exits 2 before it listens if a setting is wrong or missing",
        description="Answer Twilio's webhooks until SIGTERM.",
    )
    parser.add_argument(
        "--dev", action="store_true", help="nothing to set up: throw-away secrets, a phone page"
    )
    parser.add_argument("--host", help="address to listen on (SMSD_HOST)")
    parser.add_argument("--port", help="port of the public listener (SMSD_PORT)")
    parser.add_argument("--admin-port", help="port of the admin listener (SMSD_ADMIN_PORT)")
    parser.set_defaults(command=_serve)


def _add_phone(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "phone",
        help="a phone in the terminal, acting as Twilio does",
        description="Text a running smsd as Twilio would. The token comes from TWILIO_AUTH_TOKEN, or from the "
        "development server itself.",
    )
    parser.add_argument("url", metavar="URL", help="such as http://127.0.0.1:8080")
    parser.add_argument("--send", metavar="TEXT", help="send one message, exit 0 if a reply came")
    parser.add_argument(
        "--from", dest="from_", metavar="NUMBER", default="+14158675309", help="who texts"
    )
    parser.add_argument("--to", metavar="NUMBER", default="+14158141829", help="the number texted")
    parser.add_argument("--account", metavar="SID", help="AccountSid (TWILIO_ACCOUNT_SID)")
    parser.add_argument(
        "--public-url", metavar="URL", help="SMSD_PUBLIC_URL of the service, if URL is another"
    )
    parser.set_defaults(command=_phone)


def _add_doctor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "doctor",
        help="check settings, memcached and keys; print the URLs for Twilio's console",
        description="Check everything that `serve` needs. Exit 1 if anything is wrong.",
    )
    parser.set_defaults(command=_doctor)


def _add_keys(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "keys",
        help="print fresh SMSD_COOKIE_KEYS and SMSD_HASH_KEY",
        description="Print fresh secrets, as settings or as a Secret manifest.",
        allow_abbrev=False,  # `--token SECRET` must not pass for --token-file
    )
    parser.add_argument("--kubernetes", action="store_true", help="print a Secret manifest")
    parser.add_argument(
        "--token-file", metavar="FILE", help="file with TWILIO_AUTH_TOKEN; - for standard input"
    )
    parser.add_argument("--name", default="smsd-secrets", help="of the Secret")
    parser.add_argument("--namespace", default="smsd", help="of the Secret")
    parser.set_defaults(command=_keys)


def _serve(arguments: argparse.Namespace) -> int:
    from smsd.commands import serve

    given = {
        "SMSD_HOST": arguments.host,
        "SMSD_PORT": arguments.port,
        "SMSD_ADMIN_PORT": arguments.admin_port,
    }
    environ = {**os.environ, **{name: value for name, value in given.items() if value is not None}}
    return serve.main(environ, dev=arguments.dev)


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


def _doctor(_arguments: argparse.Namespace) -> int:
    from smsd.commands import doctor

    return EXIT_PROBLEM if doctor.main(os.environ, sys.stdout) else 0


def _keys(arguments: argparse.Namespace) -> int:
    from smsd.commands import keys

    def token() -> str:
        return secrets.token_urlsafe(32)

    if not arguments.kubernetes:
        sys.stdout.write(keys.settings_lines(token))
        return 0
    try:
        auth_token = _auth_token(arguments.token_file)
    except (OSError, UnicodeDecodeError, EOFError) as error:  # EOFError: the prompt was left
        reason = getattr(error, "strerror", None) or type(error).__name__
        sys.stderr.write(f"smsd keys: the Twilio auth token cannot be read: {reason}\n")
        return EXIT_USAGE
    if not auth_token:
        sys.stderr.write("smsd keys: the Twilio auth token is empty\n")
        return EXIT_USAGE
    sys.stdout.write(
        keys.secret_manifest(
            token, auth_token=auth_token, name=arguments.name, namespace=arguments.namespace
        )
    )
    return 0


def _auth_token(file: str | None) -> str:
    """From a file, from standard input, from the environment or from a prompt, never from the command line."""
    if file == "-" or (
        file is None and not sys.stdin.isatty() and "TWILIO_AUTH_TOKEN" not in os.environ
    ):
        return sys.stdin.readline().strip()
    if file is not None:
        return Path(file).read_text(encoding="utf-8").strip()
    if "TWILIO_AUTH_TOKEN" in os.environ:
        return os.environ["TWILIO_AUTH_TOKEN"].strip()
    from getpass import getpass

    return getpass("Twilio auth token: ").strip()
