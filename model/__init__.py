"""Nets and arithmetic: no Ray, no store, no decoding."""

if __name__ == "model":  # the same file under two names would make two classes of each
    raise ImportError("import wavmill.model, not model")
