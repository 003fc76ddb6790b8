"""Reading of YAML files, and the nearest name for messages about a wrong one."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

try:  # the parser in C takes a tenth of the time
    from yaml import CSafeLoader as Parser
except ImportError:
    from yaml import SafeLoader as Parser

from pipnet.bounds import MOST_VALUES, MOST_YAML
from pipnet.errors import UserError, one_line
from pipnet.files import read_bytes

INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
DEEPEST = 100  # levels of a file


class Loader(Parser):
    """Reads plain decimal numbers as numbers. YAML 1.1 also takes 010 for 8 and 1:30 for 90; here these are text."""

    yaml_implicit_resolvers = {
        first: [row for row in rows if row[0] not in (INT, FLOAT)]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


# each is a part of what YAML 1.1 takes for a number, so that text which is written without quotes comes back as text
Loader.add_implicit_resolver(INT, re.compile(r"[-+]?(0|[1-9][0-9]{0,300})$"), list("-+0123456789"))
Loader.add_implicit_resolver(
    FLOAT,
    re.compile(r"([-+]?[0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"),
    list("-+.0123456789"),
)


def nearest(name: str, names: Iterable) -> str:
    """Return '; did you mean X?' with the nearest of `names`, or nothing. Initials count as near: lr is learning_rate."""
    name, names = str(name), [str(other) for other in names]
    initials = [
        other for other in names if "".join(part[0] for part in re.findall(r"[^\W_]+", other)) == name.strip("-")
    ]
    near = initials if len(name.strip("-")) > 1 and initials else difflib.get_close_matches(name, names, 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _load(file: Path) -> Any:
    """Return the value in a YAML file.
    Values are counted before they are made, since aliases and merges can repeat them.
    """
    if file.stat().st_size > MOST_YAML:
        raise ValueError(f"it has more than {MOST_YAML} bytes")
    text = read_bytes(file).decode("utf-8")
    _check_depth(text)
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_depth(text: str) -> None:
    """Raise ValueError if values lie in each other so deep that the parser in C would need more stack than it has."""
    depth = 0
    for event in yaml.parse(text, Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"it has more than {DEEPEST} levels")


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values in a node. known: counts by id.

    ValueError if there are too many, if the node contains itself, or if a key is there twice, of which YAML would keep
    the last.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES  # as long as it is not known: a node in itself is endless
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        seen: set[tuple[str, str]] = set()
        for key, _ in pairs:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise ValueError(
                    f"the key {key.value[:40]!r} in line {key.start_mark.line + 1} is there already; remove one"
                )
            seen.add((key.tag, str(key.value)))
        parts = [part for pair in pairs for part in pair] or node.value
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    if known[id(node)] >= MOST_VALUES:
        raise ValueError(f"its aliases make more than {MOST_VALUES} values")
    return known[id(node)]


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raise UserError, naming file and place, if there is none."""
    try:
        values = _load(file)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    # also dates such as 2001-13-45
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is not valid YAML: {one_line(error, 500)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file} does not hold a mapping of keys to values")
    return values
