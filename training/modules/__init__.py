"""Building blocks of the models: embeddings, attention over histories, interaction layers, the snapshot aggregator."""
