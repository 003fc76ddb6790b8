"""The one exception that a person is meant to read."""


class UserError(Exception):
    """Bad input: one clear line that names the thing and the remedy; main.py prints it and exits with status 1."""
