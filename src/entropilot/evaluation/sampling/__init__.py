"""Sample completions, by transformers or vLLM, and keep them on disk."""
