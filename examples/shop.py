"""Write shop.csv and next-day.csv: a made-up shop whose lists can be judged, and its next day.

Each customer has two hobbies, and buys a hobby's products roughly in the order of the list below.
One purchase in ten is of anything. A good list names what comes next in the customer's hobbies.

    python examples/shop.py
"""

import csv
import datetime
import random
from pathlib import Path

HOBBIES = {
    "coffee": "mug grinder beans kettle scale filters carafe tamper frother descaler",
    "bread": "flour yeast bowl scraper basket blade oven-dish thermometer rack bread-bag",
    "garden": "seeds pots soil trowel gloves watering-can shears trellis compost rake",
    "bike": "helmet lock pump lights tube tools lube fenders rack-bag computer",
    "paint": "pencils paper brushes palette watercolours easel canvas varnish frame sketchbook",
    "camp": "tent mat sleeping-bag stove pot headlamp cooler hammock axe lantern",
}
NAMES = """
ada ali amy ana ari ben bob cai cem dan dia don eli ema eva fay fred gus hal ida ian ike ina ira
ivy jan jay jim joe jon kai kay ken kim lea lee leo lia liv lou lyn mae max meg mia moe ned nia
noa nur ola ole oma ora otto pam pat paz pia quin rae ray rex rio rob ron rosa roy rui sam sid
sky sol sue tad tam ted tia tim tom uma una uwe val vic vera wes will xia yan yuki zara zoe
"""


NEXT_DAY = """
ada lights
kit tent
kit mat
kit lantern
zoe hammock
leo grill
max grill
"""
"""Purchases of the next day: those of a new customer, kit, and of a new product, the grill."""


def rows() -> list[tuple[str, str, datetime.date]]:
    """Rows of (customer, product, day), the oldest first."""
    rng = random.Random(0)
    hobbies = [products.split() for products in HOBBIES.values()]
    everything = [product for products in hobbies for product in products]
    found = []
    for name in NAMES.split():
        day = datetime.date(2025, 1, 1) + datetime.timedelta(days=rng.randrange(120))
        first, second = rng.sample(hobbies, 2)
        waiting = [first[rng.randrange(4) :], second[rng.randrange(4) :]]
        bought = set()
        for _ in range(rng.randrange(6, 13)):
            hobby = rng.choice(waiting)
            product = hobby.pop(0) if hobby and rng.random() < 0.9 else rng.choice(everything)
            if product not in bought:
                bought.add(product)
                found.append((name, product, day))
            day += datetime.timedelta(days=rng.randrange(1, 20))
    return sorted(found, key=lambda row: row[2])


def write(path: Path, rows: list[tuple[str, str, datetime.date]]) -> None:
    """Write rows to a CSV file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["customer", "product", "bought_on"])
        writer.writerows(rows)


if __name__ == "__main__":
    here = Path(__file__).parent
    write(here / "shop.csv", rows())
    day = datetime.date(2025, 9, 4)
    bought = [line.split() for line in NEXT_DAY.split("\n") if line]
    write(here / "next-day.csv", [(name, product, day) for name, product in bought])
