"""Lake -> tensors: samples and histories, ids -> rows, transferred vectors, batches."""
