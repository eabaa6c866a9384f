"""The commands of `smsd`, one module each; `smsd.cli` parses their arguments.

They print for people and return exit codes. The rooms below do the work.
"""
