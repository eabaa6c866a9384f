"""`smsd keys`: fresh secrets, as settings or as a Secret manifest. Randomness is an argument."""

from collections.abc import Callable


def settings_lines(token: Callable[[], str]) -> str:
    """Two lines for an environment file."""
    return f"SMSD_COOKIE_KEYS=1:{token()}\nSMSD_HASH_KEY={token()}\n"


def secret_manifest(token: Callable[[], str], *, auth_token: str, name: str, namespace: str) -> str:
    """A Secret whose keys are mounted as files and read by NAME_FILE, so that a new version needs no restart."""
    return f"""\
apiVersion: v1
kind: Secret
metadata:
  name: {name}
  namespace: {namespace}
type: Opaque
stringData:
  TWILIO_AUTH_TOKEN: {_quoted(auth_token)}
  TWILIO_AUTH_TOKEN_SECONDARY: ''
  SMSD_COOKIE_KEYS: {_quoted(f"1:{token()}")}
  SMSD_HASH_KEY: {_quoted(token())}
"""


def _quoted(text: str) -> str:
    """A YAML scalar in single quotes."""
    return "'" + text.replace("'", "''") + "'"
