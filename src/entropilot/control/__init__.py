"""Control from preferences: MetaWorld and an analytic environment, segments with their authors, PPL and its rivals."""
