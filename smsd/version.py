"""The version, in one place: package, image label, metrics and `--version` read it
here."""

VERSION = "0.2.0"
