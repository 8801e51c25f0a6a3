"""`family doctor`: versions, providers, CPU features, Horovod, GPUs: what is there and what would fail."""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys

from family.machine import cpu_flags, n_cores

WANTED = {
    "tensorflow": "2.18.1", "tf-keras": "2.18.0", "horovod": "0.28.1", "efficientnet": "1.1.1",
    "tensorflow-model-optimization": "0.8.1", "onnx": "1.22.0", "tf2onnx": "1.17.0", "onnxruntime-gpu": "1.26.0", "onnxruntime": "1.26.0",
}  # fmt: skip

PATHS_VARIABLE = "FAMILY_CHECK_PATHS"  # a JSON list of paths that this machine should see


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    found, problems = examine()
    if args.json:
        print(json.dumps({**describe_node(), "found": found, "problems": problems}))
    else:
        print("\n".join(f"{key:32}{value}" for key, value in found.items()))
        print("\n".join(f"problem: {problem}" for problem in problems) or "no problem found")
    return 1 if problems else 0


def describe_node() -> dict:
    """Return what has to be the same on all nodes of a job, for `submit --check` to compare."""
    gpus, driver = _ask_nvidia()
    paths = json.loads(os.environ.get(PATHS_VARIABLE) or "[]")
    return {"host": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            "versions": {"python": sys.version.split()[0], **{package: _version(package) for package in WANTED}},
            "gpus": gpus, "driver": driver, "interfaces": [name for _, name in socket.if_nameindex()],
            "paths": {path: os.path.exists(path) for path in paths}}  # fmt: skip


def examine() -> tuple[dict, list[str]]:
    """Return what is there, and what would fail and how to mend it."""
    found = {"python": sys.version.split()[0], "cores of this process": n_cores()}
    problems = []
    for package, version in WANTED.items():
        found[package] = _version(package)
        if found[package] not in (None, version):
            problems.append(f"{package} is {found[package]}; {version} was tried with the rest: pip install {package}=={version}")
    if found["onnxruntime"] and found["onnxruntime-gpu"]:
        problems.append("onnxruntime and onnxruntime-gpu overwrite one another: pip uninstall both, then install one")
    if not found["onnxruntime"] and not found["onnxruntime-gpu"]:
        problems.append("no ONNX Runtime, so nothing can predict: pip install '.[serve]' or '.[train]'")
    found["ONNX Runtime providers"] = _providers()
    found["processor features"] = _features()
    found["NVIDIA GPU"] = _gpus()
    if found["horovod"]:
        found["Horovod's transports"], broken = _horovod()
        problems += broken
    found["SLURM"] = shutil.which("sbatch") or "no sbatch on the path"
    if os.environ.get("TF_USE_LEGACY_KERAS") != "1":
        problems.append("TF_USE_LEGACY_KERAS is not 1 in the environment: Horovod, efficientnet and the optimization toolkit need Keras 2")
    return {key: value if value is not None else "not installed" for key, value in found.items()}, problems


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _providers() -> str:
    if importlib.util.find_spec("onnxruntime") is None:
        return "none"
    import onnxruntime

    listed = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    return ", ".join(listed) + ("" if os.path.exists("/dev/nvidiactl") else " (listed; without a GPU only CPU runs)")


def _features() -> str:
    fast = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if flag in cpu_flags()]
    return ", ".join(fast) + ("" if {"avx512_vnni", "avx_vnni", "amx_int8"} & set(fast) else " (no VNNI: int8 will gain little)")


def _gpus() -> str:
    names, driver = _ask_nvidia()
    return f"{'; '.join(names)} (driver {driver})" if names else "none seen"


def _ask_nvidia() -> tuple[list[str], str | None]:
    """Return the names of the GPUs and the version of their driver."""
    command = shutil.which("nvidia-smi")
    if not command:
        return [], None
    words = [command, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        asked = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return [], "nvidia-smi did not answer in 60 s"
    rows = [line.rpartition(", ") for line in asked.stdout.splitlines() if ", " in line]
    return [name for name, _, _ in rows], rows[0][2] if rows else None


def _horovod() -> tuple[str, list[str]]:
    """Ask Horovod itself, in a process of its own: a broken build fails on import."""
    code = "import horovod.tensorflow as h; print(*[n for n, b in (('gloo', h.gloo_built()), ('mpi', h.mpi_built()), ('nccl', h.nccl_built())) if b])"
    try:
        asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "unknown", ["importing Horovod took more than 300 s: is the environment on a slow network file system?"]
    if asked.returncode:
        last = asked.stderr.strip().splitlines()[-1:] or ["no output"]
        return "broken", [f"Horovod can't be imported ({last[0]}); it must be built after TensorFlow: make clean setup"]
    return asked.stdout.strip(), [] if "gloo" in asked.stdout else [
        "Horovod was built without Gloo: set HOROVOD_WITH_GLOO=1 and build it again"
    ]
