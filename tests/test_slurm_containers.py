"""The container recipes, which can't be built here: that they say so, and install what the Makefile installs, in its order."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
RECIPES = sorted(path for path in (REPOSITORY / "slurm" / "containers").iterdir() if path.suffix != ".dockerignore")
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")


def joined(text: str) -> str:
    return re.sub(r"\\\n\s*", "", text)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_installs_what_the_makefile_installs_in_its_order(path):
    setup = joined(MAKEFILE).split("\npeers: setup\n")[0]
    wanted = [line.split(".ci/constraints.txt ")[1] for line in setup.splitlines() if "pip" in line.lower() and "-c .ci" in line]
    got = [
        line.split(".ci/constraints.txt ")[1].split(" && ")[0]
        for line in joined(path.read_text(encoding="utf-8")).splitlines()
        if "-c .ci" in line
    ]
    assert len(wanted) == 4 and got == [line.replace("train,dev", "train") for line in wanted]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_builds_horovod_for_nccl_and_says_that_it_never_ran(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# NEVER BUILT BY THIS PROJECT: ")
    for switch in ("HOROVOD_GPU_OPERATIONS=NCCL", "HOROVOD_WITH_GLOO=1", "HOROVOD_WITHOUT_MPI=1", "HOROVOD_WITH_TENSORFLOW=1"):
        assert switch in text
    assert "cuda:12.5.1-cudnn-devel" in text and "family.cli doctor" in text and "--ranks 2" in text


def test_apptainer_copies_what_there_is():
    text = (REPOSITORY / "slurm" / "containers" / "family.def").read_text(encoding="utf-8")
    copied = re.findall(r"^    (\S+) /opt/family/(\S+)$", text, re.MULTILINE)
    assert len(copied) == 9 and all(source == goal and (REPOSITORY / source).exists() for source, goal in copied)
    packages = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
    assert packages <= {source for source, _ in copied}
