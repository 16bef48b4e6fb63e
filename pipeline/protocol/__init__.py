"""The life of a shard, from the plan to a published part, and the objects in the store that belong to it."""
