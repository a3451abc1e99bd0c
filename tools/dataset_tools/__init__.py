"""Smaller data sets from larger ones."""
