"""Reading of YAML files, and the nearest name for messages about a wrong one."""
import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from pipnet.errors import UserError
from pipnet.files import read_bytes


def nearest(name: str, names: Iterable) -> str:
    """Return '; did you mean X?' with the nearest of `names`, or nothing. Initials count as near: lr is learning_rate."""
    name, names = str(name), [str(other) for other in names]
    initials = [other for other in names if "".join(part[0] for part in re.findall(r"[^\W_]+", other)) == name.strip("-")]
    near = initials if len(name.strip("-")) > 1 and initials else difflib.get_close_matches(name, names, 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raise UserError, naming file and place, if there is none."""
    try:
        values = yaml.safe_load(read_bytes(file).decode("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:  # dates such as 2001-13-45, tags, deep nesting
        raise UserError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file} does not hold a mapping of keys to values")
    return values
