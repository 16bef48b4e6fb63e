"""The command line, and the cluster that a job runs on."""

if __name__ == "cluster":  # one file imported under two names would give two different classes
    raise ImportError("import wavmill.cluster, not cluster")
