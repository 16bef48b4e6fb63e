"""Job files: their options, how they are read and checked, and the preview of what a job would do."""
