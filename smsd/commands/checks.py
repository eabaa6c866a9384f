"""Checks that `serve` and `doctor` share. Prints nothing and opens no connection."""

from collections.abc import Mapping

from smsd.dialogues import loading
from smsd.errors import SettingsError
from smsd.settings import table


def dialogue_problems(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Why the dialogue cannot be imported: what can be known while other settings are
    wrong.

    If SMSD_DIALOGUE itself is not of the form `module:callable`, the settings say so
    already.
    """
    try:
        spec = table.value_of("SMSD_DIALOGUE", environ)
    except SettingsError:
        return ()
    return loading.import_problems(spec)
