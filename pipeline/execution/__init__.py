"""Running the stages of a job: by workers of this machine, or on Ray."""
