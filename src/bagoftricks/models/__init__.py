"""Architectures, their initial weights, and saved models."""
