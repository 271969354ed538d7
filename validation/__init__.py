"""Data quality: suites derived from the contracts, judged by Great Expectations, and the HTML reports of what was found."""
