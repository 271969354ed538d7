"""Data quality: suites derived from the contracts, judged by Great Expectations, and reported as HTML pages."""
