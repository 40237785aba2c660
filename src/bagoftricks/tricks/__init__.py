"""One file per training refinement; each is a frozen dataclass whose defaults switch it off."""
