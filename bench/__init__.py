"""Measurements of the package by itself: each prints tables and writes JSON. `make` names them; users need none."""
