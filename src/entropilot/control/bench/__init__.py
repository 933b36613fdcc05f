"""Compare methods of learning from preferences on MetaWorld, resumably."""
