"""The commands of `smsd`, one module each. `smsd.cli` parses their arguments and imports them.

A module here may print and read the environment's mapping that it is given. What it
needs beyond that it takes from the rooms below.
"""
