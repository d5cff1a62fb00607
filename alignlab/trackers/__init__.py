"""The places that a stage reports to: the terminal, its curves file, W&B. Built by `alignlab.tracking.Tracking`."""
