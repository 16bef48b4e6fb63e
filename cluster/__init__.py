"""Where it runs."""

if __name__ == "cluster":  # the same file under two names would make two classes of each
    raise ImportError("import wavmill.cluster, not cluster")
