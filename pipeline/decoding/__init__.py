"""Sound files -> samples, in a child process that may open nothing; is a sound whole, and what was asked for?"""
