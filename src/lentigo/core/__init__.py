"""Foundations without dependencies on data or networks: errors, taxonomy, configuration, run folders."""
