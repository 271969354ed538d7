"""One module per kind of release: resolve parents and inputs, train, leave a run folder and stage it."""
