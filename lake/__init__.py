"""Everything that opens the lake: Spark session, reader without Spark, writer, locks, progress. One module per library."""
