"""DAGs: one per file, the file's name is the DAG's id. They say when; the folders' commands do the work."""
