"""`tributary drill`: kills parts of a running stack at random, again and again, while a backfill runs."""
