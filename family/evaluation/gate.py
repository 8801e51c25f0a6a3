"""`--fail-under top1.micro=0.80,levels.2.macro=0.84`: figures that a pipeline insists on."""

from family.errors import UserError, unknown_name


def parse_wanted(text: str) -> dict[str, float]:
    """Return the wanted least value of each metric, by its path in metrics.json.

    Raises:
        UserError: a part is not NAME=NUMBER.
    """
    found = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise UserError(f"--fail-under {part!r}: wanted NAME=NUMBER, as in top1.micro=0.80,levels.2.macro=0.84") from None
        if not name.strip() or found[name.strip()] != found[name.strip()]:
            raise UserError(f"--fail-under {part!r}: wanted NAME=NUMBER, as in top1.micro=0.80,levels.2.macro=0.84")
    return found


def find_short(metrics: dict, wanted: dict[str, float]) -> list[str]:
    """Return a line for each metric that is below what is wanted, with both numbers.

    Raises:
        UserError: there is no metric of that name.
    """
    numbers = dict(_numbers(metrics))
    for name in wanted:
        if name not in numbers:
            raise unknown_name("metric", name, numbers)
    return [f"{name} is {numbers[name]:.4f}, wanted at least {least:g}" for name, least in wanted.items() if not numbers[name] >= least]


def _numbers(value: dict, path: str = ""):
    """Yield the path and the value of each number in nested dictionaries."""
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _numbers(inner, f"{path}{key}.")
        elif isinstance(inner, int | float) and not isinstance(inner, bool):
            yield f"{path}{key}", inner
