"""From requests to batches on the lanes of an engine: who may wait, who goes first, what goes together."""
