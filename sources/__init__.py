"""Makes landing files: the log simulator, and adapters of public data sets."""
