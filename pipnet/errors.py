"""The exception whose message is written for the user."""


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, then what to do. The commands print it and exit with status 1."""


def one_line(error: object, length: int = 160) -> str:
    """The beginning of an error's text, on one line."""
    return " ".join(str(error).split())[:length]
