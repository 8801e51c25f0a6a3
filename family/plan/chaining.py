"""The chains of a family: their files, and the steps that evaluate them."""

import tomllib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from family.card import FILE as CARD
from family.chains import ROUTINGS, chain_text, check_thresholds
from family.errors import OtherOutput, UserError
from family.outputs import whole_file
from family.plan.members import ChainOf
from family.plan.steps import Step, standing


def chain_step(dataset: Path, out: Path, chain: ChainOf) -> Step:
    """Return the step that evaluates a chain by its file."""
    words = ("evaluate", str(_chain_file(out, chain)), str(dataset), "--out", str(out / "evaluations" / chain.name))
    return Step(words, tuple(out / "bundles" / member.folder / CARD for member in (chain.general, *chain.verticals.values())))


def renewed(step: Step, out: Path, chains: list[ChainOf]) -> Step:
    """Let a chain be evaluated anew where its members are others than those that were: it is made of them alone, and costs little."""
    chain = next((chain for chain in chains if step == chain_step(Path(step.words[2]), out, chain)), None)
    if chain is None:
        return step
    anew = replace(step, words=(*step.words, "--fresh"))
    path = _chain_file(out, chain)
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") != _chain_text(out, chain):
        return anew
    try:
        standing(step)
    except OtherOutput:
        return anew
    return step


def write_chains(out: Path, chains: list[ChainOf]) -> None:
    """Write the chains' files, which name bundles that need not be there yet. A file keeps the routing and the thresholds that
    somebody gave it."""
    for chain in chains:
        with whole_file(_chain_file(out, chain)) as partial:
            partial.write_text(_chain_text(out, chain), encoding="utf-8")


def _chain_text(out: Path, chain: ChainOf) -> str:
    verticals = {scope: out / "bundles" / member.folder for scope, member in chain.verticals.items()}
    path = _chain_file(out, chain)
    return chain_text(path, out / "bundles" / chain.general.folder, verticals, *_routing_there(path, verticals))


def _routing_there(path: Path, verticals: Collection[str]) -> tuple[str, dict[str, float]]:
    """Return the routing and the thresholds of a chain file, which somebody may have changed; the defaults where there is none that can be read."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "hard", {}
    routing = told.get("routing") if told.get("routing") in ROUTINGS else "hard"
    try:
        check_thresholds(told.get("thresholds", {}), verticals, routing, path)
    except UserError:
        return routing, {}
    return routing, told.get("thresholds", {})


def _chain_file(out: Path, chain: ChainOf) -> Path:
    return out / "chains" / f"{chain.general.folder}.toml"
