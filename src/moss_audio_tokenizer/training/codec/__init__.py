"""Training the codec: what a step computes, its losses, its discriminators and its checkpoints."""
