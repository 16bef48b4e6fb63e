"""Files that list or hold many clips: manifests row by row, tars member by member."""
