# mypy: disable-error-code="import-untyped,import-not-found"
# ruff: noqa: N803 - Triton kernels name pointers and block sizes in capitals
"""Triton kernels of the fused loss: a tile of logits is made in registers, reduced or differentiated, and dropped.

Every program owns one tile of BM tokens by BN words of the vocabulary and writes only what it owns: no atomics, no
locks, so that the same inputs give the same bits. Logits are float32 in registers and never reach memory.

Axes: N tokens, V vocabulary, D width of the hidden states, T tiles along the vocabulary, K columns of a slab.
Flags: DESC reads H and W by tensor descriptors (TMA on sm_90) instead of pointers; WIDEN multiplies in float32, for
the interpreter, whose bfloat16 products are silently wrong; PRECISION is that of float32 products.
No type checker may touch these functions (`no_type_check`): Triton reads their source and their globals.
"""

from typing import no_type_check

import triton
import triton.language as tl
from triton.language.extra import libdevice

NEVER = tl.constexpr(float("-inf"))
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
@no_type_check
def _tile_of(program, tiles_m, tiles_n, GROUP: tl.constexpr):
    """Order programs so that GROUP tiles of tokens share a strip of the head while it is in the L2 cache."""
    in_group = GROUP * tiles_n
    first = (program // in_group) * GROUP
    size = tl.minimum(tiles_m - first, GROUP)
    return first + (program % in_group) % size, (program % in_group) // size


@triton.jit
@no_type_check
def _tanh(x):
    """Return tanh, good to float32's last digits: 2·sigmoid(2x) − 1 would lose 1e-7, times the soft-cap.

    By CUDA's own device library: a polynomial near 0 is as good, but spills 400 to 700 times in `slab_gradient`.
    """
    if INTERPRETED:  # which cannot run device code
        return (2.0 * tl.sigmoid(2.0 * x.to(tl.float64)) - 1.0).to(tl.float32)
    return libdevice.tanh(x)


@triton.jit
@no_type_check
def _logits(
    H,
    W,
    B,
    row,
    column,
    N,
    V,
    D,
    inner,
    outer,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTCAP: tl.constexpr,
    DESC: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return a [BM, BN] tile of logits; −inf at words that a bias masks. Right of the vocabulary they mean nothing."""
    rows, columns = row + tl.arange(0, BM), column + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), tl.float32)
    for k in tl.range(0, D, BK):
        if DESC:
            h, w = H.load([row, k]), W.load([column, k])
        else:
            width = k + tl.arange(0, BK)
            in_h = (rows[:, None] < N) & (width[None, :] < D)
            in_w = (columns[:, None] < V) & (width[None, :] < D)
            h = tl.load(H + rows.to(tl.int64)[:, None] * D + width[None, :], mask=in_h, other=0.0)
            w = tl.load(W + columns.to(tl.int64)[:, None] * D + width[None, :], mask=in_w, other=0.0)
        if WIDEN:
            h, w = h.to(tl.float32), w.to(tl.float32)
        acc = tl.dot(h, w.T, acc, input_precision=PRECISION)
    if BIAS:
        bias = tl.load(B + columns, mask=columns < V, other=NEVER).to(tl.float32)
        acc += bias[None, :]
    z = acc * inner
    if SOFTCAP:
        z = outer * _tanh(z)
        if BIAS:
            z = tl.where((bias != NEVER)[None, :], z, NEVER)
    return z


@triton.jit
@no_type_check
def tile_statistics(
    H,
    W,
    B,
    Y,
    PEAK,
    TOTAL,
    MOMENT,
    CHOSEN,
    E,
    N,
    V,
    D,
    inner,
    outer,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTCAP: tl.constexpr,
    ENTROPY: tl.constexpr,
    STORE: tl.constexpr,
    DESC: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write each tile's peak, Σ exp(z − peak) and Σ exp(z − peak)·(z − peak) as [T, N], and the target's logit.

    With STORE, exp(z − peak) is left in E [N, V] in half precision: in [0, 1], so that rounding it costs a gradient
    no more than rounding the gradient itself would.
    """
    pm, pn = _tile_of(tl.program_id(0), tl.cdiv(N, BM), tl.cdiv(V, BN), GROUP)
    rows, columns = pm * BM + tl.arange(0, BM), pn * BN + tl.arange(0, BN)
    z = _logits(H, W, B, pm * BM, pn * BN, N, V, D, inner, outer, BM, BN, BK, BIAS, SOFTCAP, DESC, WIDEN, PRECISION)
    if pn * BN + BN > V:  # only the last tile pays for it
        z = tl.where((columns < V)[None, :], z, NEVER)
    inside = rows < N
    y = (tl.load(Y + rows, mask=inside, other=-1) - pn * BN).to(tl.int32)  # 64-bit numbers are slow to compare
    owner = inside & (y >= 0) & (y < BN)
    if tl.max(owner.to(tl.int32), 0) > 0:
        tl.store(CHOSEN + rows, tl.sum(tl.where(tl.arange(0, BN)[None, :] == y[:, None], z, 0.0), 1), mask=owner)
    peak = tl.max(z, 1)
    x = z - tl.where(peak == NEVER, 0.0, peak)[:, None]
    e = tl.exp(x)
    at = pn.to(tl.int64) * N + rows
    tl.store(PEAK + at, peak, mask=inside)
    tl.store(TOTAL + at, tl.sum(e, 1), mask=inside)
    if ENTROPY:
        tl.store(MOMENT + at, tl.sum(tl.where(e > 0.0, e * x, 0.0), 1), mask=inside)
    if STORE:
        keep = inside[:, None] & (columns[None, :] < V)
        tl.store(E + rows.to(tl.int64)[:, None] * V + columns[None, :], e.to(E.dtype.element_ty), mask=keep)


@triton.jit
@no_type_check
def _gradient(e, x, z, hit, G, A, C, rows, inside, outer, SOFTCAP: tl.constexpr, ENTROPY: tl.constexpr):
    """Return dz = e·(a − c·x) + g·onehot, times the soft-cap's slope; e = exp(x), x = z − peak."""
    dz = tl.where(hit, tl.load(G + rows, mask=inside, other=0.0)[:, None], 0.0)
    factor = tl.load(A + rows, mask=inside, other=0.0)[:, None]
    if ENTROPY:
        factor = factor - tl.load(C + rows, mask=inside, other=0.0)[:, None] * x
        dz += tl.where(e > 0.0, e * factor, 0.0)  # x may be −inf there
    else:
        dz += e * factor
    if SOFTCAP:
        tanh = z / outer
        dz = tl.where(z == NEVER, 0.0, dz * (1.0 - tanh * tanh))
    return dz


@triton.jit
@no_type_check
def slab_gradient(
    H,
    W,
    B,
    Y,
    PEAK,
    G,
    A,
    C,
    DZ,
    N,
    V,
    D,
    start,
    inner,
    outer,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTCAP: tl.constexpr,
    ENTROPY: tl.constexpr,
    DESC: tl.constexpr,
    DESC_DZ: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Make the logits of one slab again (W and B start there; V is its width) and write their gradient, DZ [N, V].

    A program may own several tiles, one after the other: with descriptors the two loops are flattened to one, so that
    a tile's operands are on their way while the tile before it is written.
    """
    tiles_m, tiles_n = tl.cdiv(N, BM), tl.cdiv(V, BN)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=DESC):
        pm, pn = _tile_of(tile, tiles_m, tiles_n, GROUP)
        row, column = pm * BM, pn * BN
        z = _logits(H, W, B, row, column, N, V, D, inner, outer, BM, BN, BK, BIAS, SOFTCAP, DESC, WIDEN, PRECISION)
        rows, columns = row + tl.arange(0, BM), column + tl.arange(0, BN)
        inside = rows < N
        y = (tl.load(Y + rows, mask=inside, other=-1) - start - column).to(tl.int32)
        x = z - tl.load(PEAK + rows, mask=inside, other=0.0)[:, None]
        hit = tl.arange(0, BN)[None, :] == y[:, None]
        dz = _gradient(tl.exp(x), x, z, hit, G, A, C, rows, inside, outer, SOFTCAP, ENTROPY)
        if DESC_DZ:
            DZ.store([row, column], dz.to(DZ.dtype))
        else:
            keep = inside[:, None] & (columns[None, :] < V)
            tl.store(DZ + rows.to(tl.int64)[:, None] * V + columns[None, :], dz.to(DZ.dtype.element_ty), mask=keep)


@triton.jit
@no_type_check
def stored_gradient(
    E,
    Y,
    TILE_PEAK,
    PEAK,
    CHOSEN,
    G,
    A,
    C,
    N,
    V,
    outer,
    TILE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SOFTCAP: tl.constexpr,
    ENTROPY: tl.constexpr,
):
    """Turn what `tile_statistics` stored into the gradient, in place: one read and one write, no product.

    TILE is the width that it was stored with; the tile's own peak, [T, N], is what its exponentials are relative to.
    """
    rows, columns = tl.program_id(0) * BM + tl.arange(0, BM), tl.program_id(1) * BN + tl.arange(0, BN)
    inside = rows < N
    keep = inside[:, None] & (columns[None, :] < V)
    at = rows.to(tl.int64)[:, None] * V + columns[None, :]
    e = tl.load(E + at, mask=keep, other=0.0).to(tl.float32)
    peak = tl.load(PEAK + rows, mask=inside, other=0.0)
    own = tl.load(TILE_PEAK + (tl.program_id(1) * BN // TILE).to(tl.int64) * N + rows, mask=inside, other=NEVER)
    moved = own - peak
    x = tl.where(e > 0.0, tl.log(tl.where(e > 0.0, e, 1.0)) + moved[:, None], NEVER)
    y = (tl.load(Y + rows, mask=inside, other=-1) - tl.program_id(1) * BN).to(tl.int32)
    hit = tl.arange(0, BN)[None, :] == y[:, None]
    e = e * tl.exp(moved)[:, None]
    chosen = tl.load(CHOSEN + rows, mask=inside, other=0.0)  # exact, where the stored one may have underflowed
    z = tl.where(hit, chosen[:, None], x + peak[:, None])
    dz = _gradient(e, x, z, hit, G, A, C, rows, inside, outer, SOFTCAP, ENTROPY)
    tl.store(E + at, dz.to(E.dtype.element_ty), mask=keep)


@triton.jit
@no_type_check
def scaled(X, FACTOR, SIZE, BLOCK: tl.constexpr):
    """Multiply X by a number on the GPU, in float32 and in place; nothing is read or written where it is 1."""
    factor = tl.load(FACTOR)
    if factor != 1.0:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(X + at, mask=at < SIZE, other=0.0).to(tl.float32)
        tl.store(X + at, (x * factor).to(X.dtype.element_ty), mask=at < SIZE)
