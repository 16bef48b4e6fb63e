"""What happens to a clip."""

if __name__ == "pipeline":  # the same file under two names would make two classes of each
    raise ImportError("import wavmill.pipeline, not pipeline")

VERSION = "0.1.0"
