"""What the DAGs share: which period a run means, how a task runs a command, and their defaults."""
