"""`tributary drill`: parts of a running stack are killed at random, again and again, while a backfill goes on."""
