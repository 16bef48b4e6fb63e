"""Nets and arithmetic: no Ray, no store, no decoding."""
