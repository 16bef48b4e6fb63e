"""Frames -> codes: k-means, its codebooks, and how far two versions of codes are apart."""
