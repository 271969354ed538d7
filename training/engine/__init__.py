"""What knows no concrete model: the training loop, weights on disk, run folders."""
