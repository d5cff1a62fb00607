"""Which stages there are, in what order they run, and where their artifacts are kept."""
