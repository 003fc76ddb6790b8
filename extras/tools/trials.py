"""Values that Optuna proposes for the runs of a sweep: --trials N."""

from typing import Any, NamedTuple

from pipnet.errors import UserError
from pipnet.packages import import_package
from utils.settings.command import read_value
from utils.settings.sections import KEYS


class Range(NamedTuple):
    """The numbers from `low` to `high` that a key may have."""

    low: float
    high: float


def read_range(key: str, text: str) -> Range | None:
    """Return the range that a text such as 1e-4..1e-2 means; None for other texts. UserError for wrong ends."""
    row = KEYS[key]
    if ".." not in text or row.kind not in (int, float) or row.many:
        return None
    low, high = (read_value(key, end) for end in text.split("..", 1))
    if not (isinstance(low, int | float) and isinstance(high, int | float) and low < high):
        raise UserError(f"--sweep {key}={text}: a range is two numbers, the smaller one first")
    return Range(low, high)


def load_optuna() -> Any:
    """Return the package. UserError if it is missing."""
    optuna = import_package("optuna", "--trials needs")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def propose(keys: dict[str, list | Range], done: list[tuple[dict, float]], seed: int) -> dict[str, Any]:
    """Return {key: value} of the next run, always the same for the same arguments.

    keys: their values or ranges; done: (values, figure) of earlier runs, of which a lower one is better.
    """
    optuna = load_optuna()
    spaces, listed = {}, {key: values for key, values in keys.items() if isinstance(values, list)}
    for key, values in keys.items():
        if isinstance(values, list):  # by index, since a value may be a list itself
            spaces[key] = optuna.distributions.CategoricalDistribution(range(len(values)))
        else:
            kind = "IntDistribution" if KEYS[key].kind is int else "FloatDistribution"
            log = values.low > 0 and values.high >= 10 * values.low
            spaces[key] = getattr(optuna.distributions, kind)(*values, log=log)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    for chosen, figure in done:
        params = chosen | {key: values.index(chosen[key]) for key, values in listed.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=figure))
    found = study.ask(spaces).params
    for key, values in keys.items():
        if isinstance(values, list):
            found[key] = values[found[key]]
        elif KEYS[key].kind is float:  # short names of folders
            found[key] = min(max(float(f"{found[key]:.3g}"), values.low), values.high)
    return found
