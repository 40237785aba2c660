"""Reports: read a study folder and nothing else; work without torch."""
