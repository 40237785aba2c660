"""Models that leave the lab: predictions, evaluation, export, a local page."""
