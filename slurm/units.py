"""Times and sizes as sbatch writes them."""

import re

from slurm.errors import BadInput

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)B?", re.IGNORECASE)
_GB_OF = {"": 1.0, "K": 1 / 1024**2, "M": 1 / 1024, "G": 1.0, "T": 1024.0}


def parse_time(text: str) -> int:
    """Return the minutes of a time limit, rounded up: MINUTES, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS, as sbatch takes it."""
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in [*parts, *([days] if dash else [])]) or len(parts) > 3:
        raise BadInput(f"time {text!r}: wanted minutes, HH:MM:SS or D-HH:MM:SS")
    numbers = [int(part) for part in parts]
    if dash:
        hours, minutes, seconds = (numbers + [0, 0])[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, minutes, seconds = 0, *(numbers + [0])[:2]
    return ((int(days or 0) * 24 + hours) * 60) + minutes + -(-seconds // 60)


def write_time(time_min: int) -> str:
    """Return minutes as HH:MM:00 or D-HH:MM:00."""
    days, minutes = divmod(time_min, 24 * 60)
    clock = f"{minutes // 60:02}:{minutes % 60:02}:00"
    return f"{days}-{clock}" if days else clock


def parse_memory(text: str) -> float:
    """Return the gigabytes (of 1024 megabytes) of `64`, `64G`, `512M` or `1.5T`."""
    found = _MEMORY.fullmatch(text)
    if not found:
        raise BadInput(f"memory {text!r}: wanted gigabytes, such as 64, 64G, 512M or 1.5T")
    return float(found[1]) * _GB_OF[found[2].upper()]
