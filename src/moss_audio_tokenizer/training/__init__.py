"""Training the codec: losses, data, the task, the loop. Needs the train extra."""
