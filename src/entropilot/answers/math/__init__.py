"""Compare mathematical answers, in processes that can be ended."""
