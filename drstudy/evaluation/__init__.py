"""Metrics, intervals over patients, calibration; nothing here runs a network."""
