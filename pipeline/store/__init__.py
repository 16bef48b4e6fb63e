"""A folder or a bucket: objects written whole or not at all, read as they were listed."""
