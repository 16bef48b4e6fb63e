"""Job files: what they may say, how they are read and checked, and what a job would do."""
