"""The made-up category tree: hand-named leaves, a balanced subset of them, or many more grown below them."""

import re

import numpy as np

from family.errors import UserError

MIN_CATEGORIES = 12
MAX_CATEGORIES = 10_000
MAX_DEPTH = 6
VERTICALS = ("Electronics", "Animals", "Transport")
MIN_LEAVES_PER_VERTICAL = 3
SHARE_NEVER_GROWN = 0.15

# A dictionary is a node, a string lists leaves, and an empty string makes the key itself a leaf.
# Lopsided on purpose: computers reach level six, aquarium fish stop at level two.
TREE = {
    "Electronics": {
        "Computers": {
            "Laptops": {
                "Gaming laptops": "",
                "Business laptops": {
                    "Ultrabooks": "13 inch ultrabooks, 14 inch ultrabooks",
                    "Workstations": "",
                },
            },
            "Desktops": "All-in-one computers, Gaming towers, Mini computers",
            "Components": {"Memory": {"Desktop memory": "DDR4 modules, DDR5 modules"}, "Graphics cards": ""},
            "Tablets": "",
        },
        "Phones": "Smartphones, Keypad phones, Cordless phones, Smart watches",
        "Audio": {"Loudspeakers": "Bookshelf speakers, Party speakers", "Amplifiers": "", "Turntables": ""},
        "Cameras": {"Compact cameras": "", "System cameras": "Camera bodies, Lenses", "Camcorders": ""},
        "Televisions": "Flat televisions, Projectors",
        "Game consoles": "",
        "Appliances": {"Laundry": "Washing machines, Tumble dryers", "Ovens": ""},
    },
    "Animals": {
        "Dogs": {
            "Herding dogs": "Collies, Sheepdogs",
            "Hunting dogs": "Retrievers, Pointers, Spaniels",
            "Companion dogs": {"Toy dogs": "Pugs, Dwarf poodles", "Terriers": ""},
        },
        "Cats": "Long-haired cats, Short-haired cats, Kittens",
        "Horses": {"Ponies": "", "Riding horses": "Jumpers, Dressage horses", "Draught horses": ""},
        "Birds": {"Parrots": "", "Poultry": "Laying hens, Ducks", "Pigeons": ""},
        "Livestock": "Cattle, Sheep, Goats",
        "Rodents and rabbits": "Rabbits, Hamsters",
        "Aquarium fish": "",
    },
    "Transport": {
        "Cars": {
            "Passenger cars": {
                "Estate cars": "Diesel estates, Petrol estates",
                "Hatchbacks": {"Small hatchbacks": "City cars, Superminis"},
                "Saloons": "",
            },
            "Sports cars": "Coupes, Convertibles",
            "Off-road cars": "",
        },
        "Motorcycles": "Road bikes, Scooters, Touring motorcycles",
        "Bicycles": {
            "City bicycles": "",
            "Mountain bicycles": "Hardtails, Full suspension",
            "Electric bicycles": "",
        },
        "Trucks and vans": {"Vans": "Panel vans, Minibuses", "Trucks": "Tippers, Box trucks"},
        "Caravans": "",
        "Boats": "Sailing boats, Motor boats, Dinghies",
    },
    "Home and garden": {
        "Chairs": "Dining chairs, Office chairs, Stools",
        "Tables": {"Dining tables": "Round tables, Extending tables", "Desks": "", "Coffee tables": ""},
        "Sofas and beds": "Corner sofas, Sofa beds, Bunk beds",
        "Cabinets": {"Wardrobes": "", "Chests of drawers": ""},
        "Lamps": "Floor lamps, Table lamps",
        "House plants": "",
    },
    "Fashion": {
        "Tops": {"Shirts": "Blouses, T-shirts", "Jackets": "Winter jackets, Rain jackets", "Jumpers": ""},
        "Trousers": "Jeans, Shorts",
        "Dresses": "Summer dresses, Evening dresses",
        "Shoes": {"Boots": "", "Trainers": "", "Sandals": ""},
        "Bags": "Handbags, Rucksacks",
        "Hats": "",
    },
    "Hobby": {
        "Guitars": {"Acoustic guitars": "", "Electric guitars": "", "Bass guitars": ""},
        "Rackets": "Tennis rackets, Badminton rackets",
        "Books": {"Fiction": "Crime novels, Poetry", "Textbooks": ""},
        "Toys": "Dolls, Robots",
        "Medals and coins": "",
    },
    "Property": {
        "Houses": {"Detached houses": "", "Terraced houses": "", "Farmhouses": ""},
        "Flats": "Studio flats, Family flats, Penthouses",
        "Garages": "",
        "Holiday cabins": "",
    },
}

# What grown children are called: a list for each level below the leaf they grow from. Brands are invented.
BRANDS = "Nordvik,Halden,Kestrel,Amaro,Tellus,Brandt & Rose,Sorano,Veldt,Quill,Marlow,Ishara,Corvo"
REGIONS = "Highland,Lowland,Island,Alpine,Coastal,Nordic,Iberian,Baltic,Moorland,Prairie"
GROWTH = {
    "Electronics": (
        BRANDS,
        "Series 1,Series 2,Series 3,Series 5,Series 7,Series 9,Pro,Lite,Max",
        "Refurbished,Sealed,Used,For parts,With warranty,Spare parts,Accessories",
    ),
    "Animals": (
        REGIONS,
        "Young,Adult,Breeding pairs,Show quality,Rescued,Pedigree,Crossbred",
        "Male,Female,Litters,Neutered,With papers,Wanted",
    ),
    "Transport": (
        BRANDS,
        "Before 1990,1990s,2000-2004,2005-2009,2010-2014,2015-2019,Since 2020",
        "Automatic,Manual,Left-hand drive,For parts,One owner,Trade",
    ),
    "Home and garden": (
        "Oak,Pine,Beech,Walnut,Steel,Glass,Rattan,Painted,Birch,Cast iron",
        "Small,Medium,Large,Extra large,Sets,Single,Pairs",
        "Antique,Vintage,Modern,Handmade,Flat-packed,Restored",
    ),
    "Fashion": (
        "Women's,Men's,Girls',Boys',Unisex,Maternity,Baby",
        "XS,S,M,L,XL,XXL,One size",
        "Cotton,Wool,Linen,Leather,Denim,Silk,Synthetic,Fleece",
    ),
    "Hobby": (
        BRANDS,
        "Beginner,Student,Professional,Collector's,Children's,Left-handed",
        "Vintage,New,Used,Limited edition,Bundles,Signed",
    ),
    "Property": (
        "City centre,Suburban,Rural,Seaside,Lakeside,Mountain,Riverside",
        "For sale,To let,Short lets,House share,Auction,New build,Exchange",
        "One bedroom,Two bedrooms,Three bedrooms,Four bedrooms,Five or more",
    ),
}


def hand_named_leaves() -> list[tuple[str, ...]]:
    """Return every leaf of the literal above as a tuple of names from the root."""
    leaves: list[tuple[str, ...]] = []

    def descend(node: dict | str, path: tuple[str, ...]) -> None:
        if isinstance(node, dict):
            for name, child in node.items():
                descend(child, (*path, name))
        elif node:
            leaves.extend((*path, name.strip()) for name in node.split(","))
        else:
            leaves.append(path)

    descend(TREE, ())
    return leaves


def grow_leaves(n_categories: int, seed: int) -> list[tuple[str, ...]]:
    """Return `n_categories` leaf paths in the order of the tree: a subset, the literal, or more than it."""
    if not MIN_CATEGORIES <= n_categories <= MAX_CATEGORIES:
        raise UserError(f"{n_categories} categories: made-up trees have {MIN_CATEGORIES} to {MAX_CATEGORIES}")
    rng = np.random.default_rng((seed, n_categories))
    leaves = hand_named_leaves()
    choose = _subset if n_categories <= len(leaves) else _grow
    grown = choose(leaves, n_categories, rng)
    department_order = list(TREE)
    return sorted(grown, key=lambda path: (department_order.index(path[0]), path[1:]))


def category_ids(paths: list[tuple[str, ...]]) -> list[str]:
    """Return a unique slug for each path: the leaf's name, led by as many ancestors as it takes."""
    hand_named = set(hand_named_leaves())
    n_names_needed = {path: next(k for k in range(1, MAX_DEPTH) if path[: len(path) - k + 1] in hand_named) for path in paths}
    ids: dict[tuple[str, ...], str] = {}
    undecided, n_names = list(paths), 1
    while undecided:
        slugs = {path: slug(" ".join(path[-n_names:])) for path in undecided}
        counts: dict[str, int] = {}
        for name in [*slugs.values(), *ids.values()]:
            counts[name] = counts.get(name, 0) + 1
        # A grown name ("Nordvik", "Pro") says nothing alone, so the hand-named leaf above always leads it.
        ids |= {path: name for path, name in slugs.items() if counts[name] == 1 and n_names >= n_names_needed[path]}
        undecided = [path for path in undecided if path not in ids]
        n_names += 1
        if n_names > MAX_DEPTH + 1:
            raise ValueError(f"no unique id for {'/'.join(undecided[0])}")
    return [ids[path] for path in paths]


def slug(text: str) -> str:
    """Return the text in lower case with every run of other characters as one hyphen."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("'", "")).strip("-")


def _subset(leaves: list[tuple[str, ...]], n: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Return n leaves: three for each vertical first, then every department in proportion to its size."""
    queues = {name: _pick_order([path for path in leaves if path[0] == name], rng) for name in TREE}
    quota = {name: MIN_LEAVES_PER_VERTICAL if name in VERTICALS else 0 for name in TREE}
    while sum(quota.values()) < n:
        room = [name for name in TREE if quota[name] < len(queues[name])]
        emptiest = min(room, key=lambda name: (quota[name] + 0.5) / len(queues[name]))
        quota[emptiest] += 1
    return [path for name in TREE for path in queues[name][: quota[name]]]


def _pick_order(leaves: list[tuple[str, ...]], rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Order a department's leaves so that any prefix has siblings and, from three leaves on, mixed depths."""
    branches: dict[str, list[tuple[str, ...]]] = {}
    for path in leaves:
        branches.setdefault(path[1], []).append(path)
    names = [list(branches)[i] for i in rng.permutation(len(branches))]
    names.sort(key=lambda name: -max(map(len, branches[name])))
    deepest, others = names[0], [names[1:][i] for i in rng.permutation(len(names) - 1)]
    # A stable sort: a leaf of level two, where there is one, comes next.
    others.sort(key=lambda name: max(map(len, branches[name])) > 2)
    ordered = [sorted(branches[name], key=len, reverse=True) for name in (deepest, *others)]
    rounds = range(max(map(len, ordered)))
    # Two leaves of a branch at a time, so that a small tree still has siblings to confuse.
    return [path for k in rounds for branch in ordered for path in branch[2 * k : 2 * k + 2]]


def _grow(leaves: list[tuple[str, ...]], n: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Return n leaves, by replacing leaves below level two with children until there are enough."""
    stays = rng.random(len(leaves)) < SHARE_NEVER_GROWN
    final = [path for path, stay in zip(leaves, stays, strict=True) if stay or len(path) == 2]
    growing = {path: len(path) for path in leaves if path not in final}
    # Pareto weights, inherited by children, make some branches far wider than others.
    weights = dict(zip(growing, rng.pareto(1.5, len(growing)) + 0.2, strict=True))
    n_now = len(leaves)
    while n_now < n:
        open_paths = [path for path in growing if len(path) < MAX_DEPTH]
        share = np.array([weights[path] / len(path) for path in open_paths])
        n_parents = max(1, (n - n_now) // 16)
        n_parents = min(n_parents, len(open_paths))
        chosen = rng.choice(len(open_paths), n_parents, replace=False, p=share / share.sum())
        for parent in (open_paths[i] for i in chosen):
            if n_now >= n:
                break
            origin = growing.pop(parent)
            weight = weights.pop(parent)
            names = GROWTH[parent[0]][len(parent) - origin].split(",")
            n_children = min(int(rng.integers(3, len(names) + 1)), n - n_now + 1)
            for i in sorted(rng.permutation(len(names))[:n_children]):
                growing[(*parent, names[i])] = origin
                weights[(*parent, names[i])] = weight / 2
            n_now += n_children - 1
    return final + list(growing)
