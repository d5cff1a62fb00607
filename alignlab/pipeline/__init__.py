"""The order of the stages, their runs, and the store of their artifacts."""
