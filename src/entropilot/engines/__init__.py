"""One folder per training engine; the only folders that import one."""
