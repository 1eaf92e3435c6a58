"""ZhiYiChain SDK: Python's view of the record."""
