"""Training data: from manifests and shards to the batch of every step; data sets for training."""
