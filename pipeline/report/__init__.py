"""report.html and README.md of what is published."""
