"""What the README tells those who have nothing of ours."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def snippet() -> str:
    """Return the Python of the README's section on exporting."""
    (section,) = re.findall(r"^## Exporting\n(.*?)^## ", README, flags=re.S | re.M)
    (found,) = re.findall(r"```python\n(.*?)```", section, flags=re.S)
    return found
