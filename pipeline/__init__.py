"""What happens to a clip."""

if __name__ == "pipeline":  # one file imported under two names would give two different classes
    raise ImportError("import wavmill.pipeline, not pipeline")

VERSION = "0.1.0"
