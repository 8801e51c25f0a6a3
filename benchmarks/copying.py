"""The picked bundle, copied, with what was measured in its card, so that what is served is what was picked."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from export.bundle import Bundle, open_bundle
from export.chain import is_chain
from family.card import write_card
from family.errors import UserError
from family.outputs import is_done, whole_folder

_SERVE = ("scheme", "threads", "provider", "batch", "machine", "cpu", "measured_at", "latency_ms", "model_sha256", "measurement", "invalid_because")


def copy_picked(found: dict, out: Path, results: list[Path], fresh: bool) -> None:
    """Copy the bundle of what `pick` returned; the card's `serve` says how it is to be served.

    Raises:
        UserError: the bundle is not here, or was exported anew, or a chain was picked.
    """
    if is_chain(Path(found["bundle"] or "")):
        raise UserError(f"{found['member']} is a chain, which is served from its own folder: {found['bundle']}; --copy-to copies one bundle")
    serve = {key: found[key] for key in _SERVE if found[key] is not None}
    made_of = {"command": "pick", "member": found["member"], **serve}
    if is_done(out, made_of, fresh):
        return
    bundle = locate_measured(found["bundle"], found["scheme"], found["model_sha256"], results)
    with whole_folder(out, made_of) as folder:
        shutil.copytree(bundle.folder, folder, dirs_exist_ok=True)
        write_card(folder, {**bundle.card, "serve": serve})


def locate_measured(name: str | None, scheme: str, sha256: str, results: Sequence[Path]) -> Bundle:
    """Open the bundle that holds a measured file: of the folders that results name, from where they lie or from here, the one whose file has the digest.
    Bundles of two runs may have one name.

    Raises:
        UserError: none is here, or none holds the file; names the folders that were found.
    """
    places = [folder / name for folder in (*(path.parent for path in results), Path())] if name else []
    found = list({os.path.abspath(place): place for place in places if (place / "card.json").is_file()}.values())
    if not found:
        raise UserError(f"the bundle {name!r} is not here; --copy-to needs it")
    for place in found:
        try:
            bundle = open_bundle(place)
        except UserError:
            if len(found) == 1:
                raise
            continue
        if bundle.schemes.get(scheme, {}).get("sha256") == sha256:
            bundle.model_path(scheme)  # refuses a file that is not the card's
            return bundle
    told = ", ".join(map(str, found))
    raise UserError(f"no bundle here holds the file that was measured ({scheme}, sha256 {sha256[:12]}): there is {told}, of another run, or exported anew "
                    "after it was measured; run `family bench` again, or give the results that lie beside its bundle")  # fmt: skip
