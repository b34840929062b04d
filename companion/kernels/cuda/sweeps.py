"""How a program goes over its part: tile by tile, or over the tiles that it holds in registers.

What is done with a tile is handed in, as a function. Its first argument `given` is a tuple of
whatever it needs, which passes through here as it is.
"""

import triton
import triton.language as tl

from .tiles import (
    add_tile,
    added_shares,
    by_channel,
    first_rows,
    locate,
    meet,
    next_rows,
    no_sums,
    store_share,
)

# --- Read once more ------------------------------------------------------------------------------


@triton.jit
def read_sums(TERMS: tl.constexpr, given, part, sizes, TILE, COMPUTE):
    """Two sums over a part, per channel: float64.

    ``TERMS(given, offsets, mask)`` are what the values of a tile add to each.
    """
    sums = no_sums(TILE, COMPUTE)
    products = sums
    at, piece = first_rows(part.begin, part.block, sizes, TILE)
    for start in range(part.begin, part.end, TILE.ROWS):
        offsets, mask = locate(at, piece, part.end - start, part.block, sizes, TILE, TILE.WHOLE)
        term, product = TERMS(given, offsets, mask)
        sums = add_tile(sums, term, TILE)
        products = add_tile(products, product, TILE)
        at, piece = next_rows(at, piece, sizes, TILE, False)
    return by_channel(sums, sizes, TILE), by_channel(products, sizes, TILE)


@triton.jit
def visit_from_the_end(VISIT: tl.constexpr, given, part, sizes, TILE):
    """``VISIT(given, offsets, mask)`` for every tile of a part, the last one first."""
    last = part.begin + (part.end - 1 - part.begin) // TILE.ROWS * TILE.ROWS
    at, piece = first_rows(last, part.block, sizes, TILE)
    for start in range(part.begin, part.end, TILE.ROWS):
        left = part.end - part.begin + start - last
        offsets, mask = locate(at, piece, left, part.block, sizes, TILE, TILE.WHOLE)
        VISIT(given, offsets, mask)
        at, piece = next_rows(at, piece, sizes, TILE, True)


# --- Held in registers ---------------------------------------------------------------------------


@triton.jit
def hold(values_at, part, sizes, TILE):
    """Read a part: its tiles, and of each which are values."""
    at, piece = first_rows(part.begin, part.block, sizes, TILE)
    tiles, masks = (), ()
    for step in tl.static_range(TILE.TILES):
        left = part.end - part.begin - step * TILE.ROWS
        offsets, mask = locate(at, piece, left, part.block, sizes, TILE, step < TILE.FULL)
        tiles += (tl.load(values_at + offsets, mask=mask, other=0.0),)
        masks += (mask,)
        at, piece = next_rows(at, piece, sizes, TILE, False)
    return tiles, masks


@triton.jit
def held_sums(TERMS: tl.constexpr, tiles, others, masks, centre, sizes, TILE):
    """Two sums over the tiles that a program holds, per channel: float64.

    ``TERMS(tile, other, mask, centre)`` are what the values of a tile add to each.
    """
    sums = no_sums(TILE, TILE.COMPUTE)
    products = sums
    group, group_products = TERMS(tiles[0], others[0], masks[0], centre)
    for step in tl.static_range(1, TILE.TILES + 1):
        if step % TILE.GROUP == 0 or step == TILE.TILES:
            sums = add_tile(sums, group, TILE)
            products = add_tile(products, group_products, TILE)
        if step < TILE.TILES:
            term, product = TERMS(tiles[step], others[step], masks[step], centre)
            if step % TILE.GROUP == 0:
                group, group_products = term, product
            else:
                group += term
                group_products += product
    return by_channel(sums, sizes, TILE), by_channel(products, sizes, TILE)


@triton.jit
def visit_held(VISIT: tl.constexpr, given, begin, part, sizes, TILE):
    """``VISIT(given, step, offsets, mask)`` for every tile that is held; the tiles that it returns.

    `begin` is that of the part. After a first sweep it is to be :func:`.tiles.anew`, as if it were
    another: else the compiler would hold all offsets, too.
    """
    at, piece = first_rows(begin, part.block, sizes, TILE)
    tiles = ()
    for step in tl.static_range(TILE.TILES):
        left = part.end - begin - step * TILE.ROWS
        offsets, mask = locate(at, piece, left, part.block, sizes, TILE, step < TILE.FULL)
        tiles += (VISIT(given, step, offsets, mask),)
        at, piece = next_rows(at, piece, sizes, TILE, False)
    return tiles


@triton.jit
def sums_of_all(sums, products, shares, arrived, part, sizes, TILE, STEP):
    """The sums of a whole block from those of a part: its programs meet, if they are several."""
    if shares.sums is not None:
        store_share(shares, part, sizes.C, sums, products)
        meet(arrived + part.block, shares.parts)
        sums, products = added_shares(
            shares, part.channel, part.exists, sizes.C, TILE.CHANNELS, STEP
        )
    return sums, products
