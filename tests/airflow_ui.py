"""What a person clicks in Airflow's UI (3.3): sign in, backfill a day by the form, look at a task and at the data quality."""

from __future__ import annotations

from datetime import date
from urllib.parse import quote

from browser import Browser

FRAME = "document.querySelector('iframe')?.contentDocument"  # the plugin's page


class AirflowUi:
    """Airflow in a browser, as one user."""

    def __init__(self, page: Browser, address: str) -> None:
        self.page, self.address = page, address

    def sign_in(self, user: str, password: str) -> None:
        self.page.open(self.address)
        self.page.fill("input[name=username]", user)
        self.page.fill("input[name=password]", password)
        self.page.click("Sign in", selector="button")
        self.page.wait_for("document.body.innerText.includes('Dags')")

    def open_dags(self) -> None:
        self.page.click("Dags")
        self.page.wait_for("document.body.innerText.includes('logs_daily')")

    def open_dag(self, dag_id: str) -> None:
        self.page.open(f"{self.address}/dags/{dag_id}")

    def fill_backfill_form(self, dag_id: str, day: date) -> None:
        """Up to its last button."""
        self.open_dag(dag_id)
        self.page.click("Trigger", selector="button")
        self.page.click("Backfill", selector="[role=dialog] label")
        for _ in ("from", "to"):
            self.page.click("Select date and time", selector="[role=dialog] p")
            self.page.fill("input[placeholder='YYYY/MM/DD']", f"{day:%Y/%m/%d}")
            self.page.fill("input[placeholder='HH:mm']", "00:00")
            self.page.press("Escape")  # closes the picker, not the form
            self.page.wait_for("!document.querySelector(\"input[placeholder='YYYY/MM/DD']\")")

    def backfill(self, dag_id: str, day: date) -> None:
        self.fill_backfill_form(dag_id, day)
        self.page.wait_for(
            "![...document.querySelectorAll('button')].find(one => one.textContent === 'Run Backfill').disabled"
        )
        self.page.click("Run Backfill", selector="button")
        self.page.wait_for("!document.querySelector('[role=dialog]')?.innerText?.includes('Date Range')")

    def open_links_of(self, dag_id: str, run_id: str, task_id: str) -> None:
        """The tab of a task that holds its links."""
        self.page.open(f"{self.address}/dags/{dag_id}/runs/{quote(run_id, safe='')}/tasks/{task_id}")
        self.page.click("Details")
        self.page.wait_for("document.body.innerText.includes('Extra Links')")

    def open_data_quality(self) -> None:
        self.page.click("Data quality")
        self.page.wait_for(f"{FRAME}?.body?.innerText?.includes('Data quality')")
