"""Studies: a design over recipe fields, its runs, and what they mean."""
