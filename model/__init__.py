"""Nets and arithmetic: no Ray, no store, no decoding."""

if __name__ == "model":  # one file imported under two names would give two different classes
    raise ImportError("import wavmill.model, not model")
