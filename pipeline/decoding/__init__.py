"""Sound files -> samples, in a sandboxed child process; and checks that a sound is complete."""
