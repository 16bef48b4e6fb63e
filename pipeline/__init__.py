"""What happens to a clip."""

VERSION = "0.1.0"
