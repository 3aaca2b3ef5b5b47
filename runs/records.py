"""Look after files of records: list them, merge studies, remove what is to be trained again.

python runs/records.py list FILE
python runs/records.py merge FROM INTO        # folders `records` of two studies
python runs/records.py remove FILE KEY…
"""

from __future__ import annotations

import argparse
from pathlib import Path

from comet_rec.experiments import records


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list").add_argument("file", type=Path)
    merge = commands.add_parser("merge")
    merge.add_argument("source", type=Path, metavar="FROM")
    merge.add_argument("target", type=Path, metavar="INTO")
    remove = commands.add_parser("remove")
    remove.add_argument("file", type=Path)
    remove.add_argument("keys", nargs="+", metavar="KEY")
    given = parser.parse_args()
    if given.command == "list":
        print("\n".join(records.keys(given.file)))
    elif given.command == "merge":
        print(f"{records.merge(given.source, given.target)} records copied")
    else:
        unknown = set(given.keys) - set(records.keys(given.file))
        if unknown:
            parser.error(f"{given.file}: no record {', '.join(sorted(unknown))}")
        records.rewrite(given.file, remove=given.keys)


if __name__ == "__main__":
    main()
