"""Judging predictions: metrics with intervals, figures, reports."""
