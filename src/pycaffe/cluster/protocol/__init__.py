"""The parameter server without Ray: shards, versions, clocks, who waits for whom, checkpoints. Pure state machines."""
