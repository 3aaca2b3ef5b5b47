"""Requirements with the SHA-256 of each file, from a report of ``pip install --report``.

python .ci/hashed_requirements.py REPORT > requirements.txt
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for entry in sorted(report["install"], key=lambda each: each["metadata"]["name"].lower()):
        about = entry["metadata"]
        if about["name"] == "comet-rec":
            continue  # the wheel itself
        digest = entry["download_info"]["archive_info"]["hashes"]["sha256"]
        # pip needs no local part, such as +cpu, and indexes do not have it.
        version = about["version"].partition("+")[0]
        print(f"{about['name']}=={version} --hash=sha256:{digest}")


if __name__ == "__main__":
    main()
