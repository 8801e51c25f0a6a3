"""Who may import whom, read from the sources; and that the light path never loads TensorFlow."""

import ast
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
OURS = {"family", "distributed", "export", "benchmarks", "slurm"}
MAY_IMPORT = {
    "slurm": set(),
    "distributed": set(),
    "family": {"distributed"},
    "export": {"family"},
    "benchmarks": {"export", "family", "distributed"},
}
# A plan is handed to `slurm` as arrays, at one place.
HANDS_OVER = {"family/plan/cluster.py": {"slurm"}}
LIGHT = (
    "family.card",
    "family.data.ontology",
    "family.data.dataset",
    "family.data.importing",
    "family.evaluation.metrics",
    "family.plan.produce",
    "family.training.command",
    "export.command",
    "export.runtime",
    "export.verifying",
    "export.speed",
    "export.chain",
    "export.evaluate",
    "export.predict",
    "benchmarks.bench",
    "benchmarks.peers.comparing",
    "benchmarks.pick",
    "benchmarks.report",
)
LOADED = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    print(name, *{module.split(".")[0] for module in sys.modules})
"""
HEAVY = {"tensorflow", "tf_keras", "keras", "horovod", "onnx", "tf2onnx"}


def imports_of(path: Path) -> list[str]:
    """Return the modules that a file imports anywhere, also inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module)
    return found


def files_of(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


def test_every_package_is_in_the_table():
    packages = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - {"tests"}
    assert packages == OURS == set(MAY_IMPORT)


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_arrows_go_one_way(package):
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in files_of(package)
        for name in imports_of(path)
        if name.split(".")[0] in OURS - {package} - MAY_IMPORT[package] - HANDS_OVER.get(path.relative_to(REPOSITORY).as_posix(), set())
    ]
    assert wrong == []


def test_slurm_is_the_standard_library_alone():
    allowed = sys.stdlib_module_names | {"slurm"}
    assert [(path.name, name) for path in files_of("slurm") for name in imports_of(path) if name.split(".")[0] not in allowed] == []


def test_only_distributed_knows_horovod():
    others = [path for package in OURS - {"distributed"} for path in files_of(package)]
    assert [path.name for path in others if any(name.split(".")[0] == "horovod" for name in imports_of(path))] == []


def test_the_command_line_imports_no_stage():
    assert {name.split(".")[0] for name in imports_of(REPOSITORY / "family/cli.py")} <= sys.stdlib_module_names


def test_plans_import_no_stage():
    stages = ("family.training", "family.evaluation", "family.models", "export", "benchmarks", "tensorflow")
    tables = ("family.models.variants", "family.models.sources", "family.models.carrying")  # sizes, where weights and heads come from
    wrong = [
        (path.name, name) for path in files_of("family/plan") for name in imports_of(path) if name.startswith(stages) and name not in tables
    ]
    assert wrong == []


def test_tests_import_no_tests():
    assert not [path.name for path in (REPOSITORY / "tests").glob("*.py") if any(name.startswith("test") for name in imports_of(path))]


def test_the_light_path_never_loads_tensorflow(run_python):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    done = run_python("-c", LOADED, *LIGHT)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        name, *loaded = line.split()
        assert HEAVY.isdisjoint(loaded), name
    assert len(done.stdout.splitlines()) == len(LIGHT)


def test_picking_and_reporting_need_no_runtime(run_python):
    code = "import sys, benchmarks.pick, benchmarks.report, family.card, family.data.ontology; print('onnxruntime' in sys.modules)"
    assert run_python("-c", code).stdout.strip() == "False"
