"""Profiles of clusters, one file a target."""
