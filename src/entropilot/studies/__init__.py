"""Studies: many runs with their controls, made once each, and the tables over seeds that come out of them."""
