"""CTR libraries that a team would pick otherwise, each run by a script in an environment of its own, on the same rows."""
