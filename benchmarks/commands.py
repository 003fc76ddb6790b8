"""Commands of the benchmarks: `python benchmarks/FILE.py NAME ...` calls the function NAME and saves its figures."""

import argparse
import inspect
import re
import shlex
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from record import save, updated


class Command(NamedTuple):
    """A function of this name in `module`.
    keys: columns that tell its rows apart; rows that are not made stay in the file.
    """

    module: str
    keys: tuple[str, ...] = ()


def read(known: dict[str, Command], argv: list[str], text: str) -> tuple[str, str, Callable]:
    """Return the command that is typed, its result file, and the call of its function.

    Parameters without a default, and `*words`, are words of the command line; the others are options. `*flags` gets all
    words.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=known, help="NAME --help says more")
    name = parser.parse_args(argv[:1]).name
    function = getattr(import_module(known[name].module), name)
    signature = inspect.signature(function)
    if "flags" in signature.parameters:
        return name, name, partial(function, *argv[1:])
    parser = argparse.ArgumentParser(
        prog=f"{parser.prog} {name}",
        description=inspect.getdoc(function),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for word, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            parser.add_argument(word, nargs="*", type=parameter.annotation)
        elif parameter.default is parameter.empty:
            parser.add_argument(word, type=parameter.annotation)
        elif parameter.default == ():
            parser.add_argument(f"--{word}", nargs="+", default=())
        else:
            parser.add_argument(
                f"--{word}", type=parameter.annotation, default=parameter.default, help="default: %(default)s"
            )
    parser.add_argument("--into", metavar="FILE", default=name, help="save in results/FILE.json; default: %(default)s")
    bound, given = signature.bind_partial(), vars(parser.parse_args(argv[1:]))
    into = given.pop("into")
    bound.arguments.update(given)
    return name, into, partial(function, *bound.args, **bound.kwargs)


def main(known: dict[str, Command], text: str) -> None:
    """Run the command line. A function returns its figures, yields its rows, or saves them itself and returns nothing.

    The status is 1 if a figure `failed` is not 0.
    """
    name, into, call = read(known, sys.argv[1:], text)
    if (found := call()) is None:
        return
    figures = found if isinstance(found, dict) else {"rows": [*found]}
    if not figures.get("rows", True):
        sys.exit("nothing was measured; the result file stays as it is")
    if keys := known[name].keys:
        figures["rows"] = updated(into, figures["rows"], keys)
    words = [re.sub("(?<![^=])/.*/", "", word) for word in sys.argv[1:]]  # without folders of this machine
    save(into, f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(words)}", 0, figures)
    sys.exit(bool(figures.get("failed")))
