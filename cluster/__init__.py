"""Ray clusters: start, watch and stop them."""
