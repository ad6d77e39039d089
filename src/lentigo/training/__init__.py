"""Fitting a network and running it over a data set."""
