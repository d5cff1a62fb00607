"""Comparisons whose messages name the owner, the quantity and the size of a difference."""

from torch import Tensor


def close(owner: str, found: Tensor, expected: Tensor, what: str, tolerance: float = 1e-9) -> None:
    """Largest difference within `tolerance` of the largest expected value, or of 1."""
    scale = float(expected.detach().abs().max().clamp_min(1.0)) if expected.numel() else 1.0
    far = float((found - expected).detach().abs().max()) if expected.numel() else 0.0
    assert far <= tolerance * scale, f"{owner}: {what} is {far:.3g} off (at a scale of {scale:.3g})"


def same_bits(owner: str, found: Tensor, expected: Tensor, what: str) -> None:
    """Equal, to the bit."""
    if found.shape == expected.shape:
        far = float((found.double() - expected.double()).abs().max()) if found.numel() else 0.0
        assert bool((found == expected).all()), f"{owner}: {what}: not the same bits, up to {far:.3g} apart"
    else:
        raise AssertionError(f"{owner}: {what}: shape {tuple(found.shape)}, not {tuple(expected.shape)}")
