"""The report of ad models: what they scored over some days, as one HTML page."""
