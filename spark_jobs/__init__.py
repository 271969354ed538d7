"""Landing files -> logs -> features -> samples, by Spark; every write goes through `lake.writing`."""
