"""What programs that meet have in common: they hold their part in registers, a tuple of tiles."""

import triton
import triton.language as tl

from .tiles import add_tile, by_channel, first_rows, next_rows, no_sums, tile


@triton.jit
def hold(
    values_at, begin, end, block, C, channels, values, pieces, total,
    LANES, ROWS, UNIT, TILES, FULL, PIECED, EXACT, FOLDED, INDEX,
):  # fmt: skip
    """Read a part: its tiles, and of each which are values."""
    at, piece = first_rows(begin, block, C, channels, values, pieces, LANES, ROWS, PIECED, INDEX)
    held, masks = (), ()
    for step in tl.static_range(TILES):
        offsets, mask = tile(
            at, piece, end - begin - step * ROWS, block, C, channels, values, total,
            LANES, ROWS, UNIT, step < FULL, EXACT, FOLDED, INDEX,
        )  # fmt: skip
        held += (tl.load(values_at + offsets, mask=mask, other=0.0),)
        masks += (mask,)
        at, piece = next_rows(at, piece, C, values, pieces, LANES, ROWS, PIECED, INDEX, False)
    return held, masks


@triton.jit
def held_sums(
    TERMS: tl.constexpr, held, others, masks, centre, run, C,
    LANES, ROWS, CHANNELS, UNIT, WRAPS, FEW, TILES, COMPUTE,
):  # fmt: skip
    """Two sums over the tiles that a program holds: float64.

    ``TERMS(tile, other, mask, centre)`` are what a value adds to each.
    """
    sums = no_sums(LANES, ROWS, CHANNELS, UNIT, WRAPS, COMPUTE)
    products = sums
    few, few_products = TERMS(held[0], others[0], masks[0], centre)
    for step in tl.static_range(1, TILES + 1):
        if step % FEW == 0 or step == TILES:
            sums = add_tile(sums, few, LANES, ROWS, CHANNELS, UNIT, WRAPS)
            products = add_tile(products, few_products, LANES, ROWS, CHANNELS, UNIT, WRAPS)
        if step < TILES:
            more, more_products = TERMS(held[step], others[step], masks[step], centre)
            if step % FEW == 0:
                few, few_products = more, more_products
            else:
                few += more
                few_products += more_products
    return (
        by_channel(sums, run, C, LANES, CHANNELS),
        by_channel(products, run, C, LANES, CHANNELS),
    )
