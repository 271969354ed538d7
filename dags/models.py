"""A DAG for each kind of model, as `contracts.kinds` declares them."""

from airflow.sdk import DAG

from contracts.kinds import KINDS
from dags.dagkit.defaults import defaults
from dags.dagkit.deployment import deployment
from dags.dagkit.models import model_tasks
from dags.dagkit.page import model_page

for kind in KINDS.values():
    # More than one run may be active, although a chain trains one after another: a run that waits for its predecessor
    # must not block that predecessor from running again.
    with DAG(
        kind.dag,
        description=kind.makes,
        doc_md=model_page(kind),
        max_active_runs=3,
        **defaults(
            kind.cadence,
            first_day=getattr(deployment().lineage, kind.first),
            trains=kind.trains,
            transfers=kind.transfers,
        ),
    ):
        model_tasks(kind)
