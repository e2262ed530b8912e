"""Measurements.  They print ratios and pass; no figure here can turn the suite red."""
