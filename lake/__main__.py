"""`python -m lake`: fetches the jars of Delta and Avro, once; those of a store's client too if TRIBUTARY_LAKE names one."""

from contracts.errors import run_command
from contracts.settings import lake_address
from lake.session import fetch_jars


def main(argv: object = None) -> int:
    """Fetches the jars and prints where they lie."""
    jars = fetch_jars(lake_address() is not None)
    print(f"{len(jars)} jars in {jars[0].rsplit('/', 1)[0]}")
    return 0


raise SystemExit(run_command(main))
