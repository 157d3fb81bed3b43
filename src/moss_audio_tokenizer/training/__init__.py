"""Training: losses, data, tasks, and the loop that is one for all. Needs the train extra."""
