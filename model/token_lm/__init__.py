"""SamOut, a language model of tokens: the net, its vocabulary, its loss, and generation."""
