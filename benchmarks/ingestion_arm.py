"""An arm of `benchmarks.ingestion`: ingests the day of each home that its standard input names, and prints the seconds.

It is run with the sources of some commit on PYTHONPATH, so it needs nothing that any commit lacks.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import date
from pathlib import Path

from contracts.locations import Locations
from contracts.settings import Deployment
from lake.session import spark_session
from spark_jobs import ingest_logs


def main() -> None:
    with spark_session(Locations(Path(sys.argv[1])), app="benchmark") as spark:
        for line in sys.stdin:
            asked = json.loads(line)
            locations = Locations(Path(asked["home"]))
            began = time.perf_counter()
            builds = ingest_logs.run(
                spark, locations, Deployment.load(locations.home), [date.fromisoformat(asked["day"])]
            )
            seconds = time.perf_counter() - began
            print(
                "RESULT " + json.dumps({"seconds": seconds, "rows": sum(build.row_cnt for build in builds)}), flush=True
            )


if __name__ == "__main__":
    main()
