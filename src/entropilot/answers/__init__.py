"""Strings in, classes of equivalent answers out: extraction, judges of equivalence, clusters and semantic entropy."""
