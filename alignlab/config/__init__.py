"""From configuration text to checked objects. Only this package and the command import Hydra."""
