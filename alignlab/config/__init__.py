"""From configuration text to checked objects. Of the library, only this package and the command know Hydra."""
