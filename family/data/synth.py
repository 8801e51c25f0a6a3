"""`family data synth`: a dataset of made-up listings, by the same import that a user's listings take."""

import argparse
import csv
import shutil
import tempfile
from pathlib import Path

from family.data.importing import import_dataset
from family.data.synthetic import IMAGE_PX, draw_listings, make_ontology
from family.errors import UserError
from family.outputs import MADE_OF, is_done, write_json
from family.progress import next_command, progress

COLUMNS = ("listing_id", "image", "category", "title", "country", "seller_type", "price")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="the dataset folder to write")
    parser.add_argument("--listings", type=int, default=1200, help="how many listings, of one to four images (default 1200)")
    parser.add_argument("--categories", type=int, default=40, help="how many leaves the tree has, at least 12 (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="everything is a function of it (default 0)")
    parser.add_argument("--image-px", type=int, default=IMAGE_PX, metavar="N", help=f"the longer side of an image (default {IMAGE_PX})")
    parser.add_argument("--fresh", action="store_true", help="move an OUT that is there aside")


def run(args: argparse.Namespace) -> int:
    if not 32 <= args.image_px <= 1024:
        raise UserError(f"--image-px {args.image_px}: wanted 32 to 1024")
    made_of = {"command": "data synth", "listings": args.listings, "categories": args.categories, "seed": args.seed}
    made_of |= {"image_px": args.image_px} if args.image_px != IMAGE_PX else {}  # older datasets don't tell it
    if is_done(args.out, made_of, args.fresh):
        print(f"{args.out}: already done")
    else:
        _synthesize(args.out, args.listings, args.categories, args.seed, args.image_px, made_of)
    print(next_command("train", args.out, "--out", "runs/first", "--weights", "none", "--recipe", "scratch"))
    return 0


def _synthesize(out: Path, n_listings: int, n_categories: int, seed: int, image_px: int, made_of: dict) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    source = Path(tempfile.mkdtemp(prefix=".synth-", dir=out.parent))
    try:
        folder = source / "made-up"
        write_source(folder, n_listings, n_categories, seed, image_px)
        import_dataset(folder, source / "dataset", seed=seed)
        # The dataset is a function of the seed, not of the folder that it was drawn in.
        write_json(source / "dataset" / MADE_OF, made_of)
        if out.is_dir():
            out.rmdir()
        (source / "dataset").rename(out)
    finally:
        shutil.rmtree(source, ignore_errors=True)


def write_source(folder: Path, n_listings: int, n_categories: int, seed: int, image_px: int = IMAGE_PX) -> None:
    """Write listings.csv, ontology.csv and images, as a user would bring them."""
    leaves = make_ontology(n_categories, seed)
    (folder / "images").mkdir(parents=True)
    with open(folder / "ontology.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("category_id", "path"), *leaves])
    with open(folder / "listings.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        drawn = draw_listings(leaves, n_listings, seed, image_px)
        for listing in progress(drawn, "drawing", total=n_listings, unit="listings"):
            for k, image in enumerate(listing["images"]):
                name = f"images/{listing['listing_id']}-{k}.jpg"
                (folder / name).write_bytes(image)
                writer.writerow([listing["listing_id"], name, *(listing[column] for column in COLUMNS[2:])])
