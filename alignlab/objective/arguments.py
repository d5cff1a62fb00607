"""Checks of an objective's arguments."""


def check_positive(owner: object, **reasons: str) -> None:
    """Refuse arguments that are not above 0.

    Args:
        owner: has them as attributes.
        reasons: for each argument, what it does.

    Raises:
        ValueError: one of them is not.
    """
    for name, reason in reasons.items():
        value = getattr(owner, name)
        if not value > 0:
            raise ValueError(f"{type(owner).__name__}: {name} must be > 0, got {value}; {reason}")
