"""DAGs: one per file, the file's name is the DAG's id. They decide when something runs; the folders' commands do the work."""
