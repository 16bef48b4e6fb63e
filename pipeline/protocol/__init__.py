"""A shard from the plan to a published part: what lies in a store meanwhile, and who may change it."""
