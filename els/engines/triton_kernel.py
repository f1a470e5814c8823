"""The GPU code of `els.engines.triton_engine`, in a module of its own: not every place has Triton.

For a displacement s let e_s(u) = |x(u) - alpha y(u + s)|^2 / (2 sigma^2 ln 2), summed over the
channels, where places wrap round. Minus the binary logarithm of the weight of the patch around
u + s at place u is a k x k box sum of e_s, and that is a product of three matrices, band @ e_s @
band with bands of zeros and ones: products with them are exact, all terms are non-negative and
nothing is subtracted, and the cost does not depend on k. Windows that wrap where a machine's must
not are never used: `_allowed` sees to it.
"""

import triton
import triton.language as tl

# The -log2 weight of no patch at all: finite, so that differences are never NaN.
NOTHING = tl.constexpr(3e38)
# Half way between the grey levels: a pixel's byte less this is exact in float32.
MIDDLE = tl.constexpr(127.5)


@triton.jit
def _allowed(u, shift, radius, LENGTH: tl.constexpr, WRAPS: tl.constexpr):
    """Whether place u may use place u + shift, along one axis: `axis_groups` as a rule on offsets.

    A window that crosses a border keeps to its place.
    """
    v = (u + shift + LENGTH) % LENGTH
    allowed = (v >= radius) & (v < LENGTH - radius)
    if not WRAPS:
        allowed = (allowed & (u >= radius) & (u < LENGTH - radius)) | (shift == 0)
    return allowed & (u < LENGTH)


@triton.jit
def _band(u, cell, radius, LENGTH: tl.constexpr, WRAPS: tl.constexpr):
    """1.0 where `cell` is in the image and in the window around place u, along one axis."""
    apart = tl.abs(u - cell)
    if WRAPS:
        apart = tl.minimum(apart, LENGTH - apart)
    return ((apart <= radius) & (cell < LENGTH)).to(tl.float32)


@triton.jit
def _meeting(
    uy, ux, sy, sx, radius, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, WRAPS: tl.constexpr
):
    """Whether the places of a tile may use those at a displacement, and where these are."""
    allowed = (
        _allowed(uy, sy, radius, HEIGHT, WRAPS)[:, None]
        & _allowed(ux, sx, radius, WIDTH, WRAPS)[None, :]
    )
    centre_y, centre_x = (uy + sy + HEIGHT) % HEIGHT, (ux + sx + WIDTH) % WIDTH
    return allowed, centre_y[:, None] * WIDTH + centre_x[None, :]


@triton.jit
def _boxes(
    x,
    y,
    step,
    tile_y,
    tile_x,
    uy,
    ux,
    sy,
    sx,
    radius,
    CHANNELS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    WRAPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    NEAR_Y: tl.constexpr,
    NEAR_X: tl.constexpr,
):
    """Minus the binary logarithms of the weights of image y's patches at a displacement."""
    TILES_Y: tl.constexpr = (HEIGHT + ROWS - 1) // ROWS
    TILES_X: tl.constexpr = (WIDTH + COLUMNS - 1) // COLUMNS
    PLANE: tl.constexpr = HEIGHT * WIDTH
    box = tl.zeros((ROWS, COLUMNS), tl.float32)
    for i in range(NEAR_Y):
        near_y = (tile_y + TILES_Y - NEAR_Y // 2 + i) % TILES_Y
        cy = near_y * ROWS + tl.arange(0, ROWS)
        along_x = tl.zeros((ROWS, COLUMNS), tl.float32)
        for j in range(NEAR_X):
            near_x = (tile_x + TILES_X - NEAR_X // 2 + j) % TILES_X
            cx = near_x * COLUMNS + tl.arange(0, COLUMNS)
            vy, vx = (cy + sy + HEIGHT) % HEIGHT, (cx + sx + WIDTH) % WIDTH
            # Cells of the tile outside the image read something; the band is zero there.
            here = (cy % HEIGHT)[:, None] * WIDTH + (cx % WIDTH)[None, :]
            there = vy[:, None] * WIDTH + vx[None, :]
            squares = tl.zeros((ROWS, COLUMNS), tl.float32)
            for c in tl.static_range(CHANNELS):
                level = tl.load(y + c * PLANE + there).to(tl.float32) - MIDDLE
                difference = tl.load(x + c * PLANE + here) - step * level
                squares += difference * difference
            band_x = _band(ux[None, :], cx[:, None], radius, WIDTH, WRAPS)
            along_x = tl.dot(squares, band_x, along_x, input_precision="ieee")
        band_y = _band(uy[:, None], cy[None, :], radius, HEIGHT, WRAPS)
        box = tl.dot(band_y, along_x, box, input_precision="ieee")
    return box


@triton.jit
def _values(y, centre, CHANNELS: tl.constexpr, PLANE: tl.constexpr, SUMS: tl.constexpr):
    """The centre pixels of image y's patches (SUMS ROWS COLUMNS), in levels.

    The constant 1 stands as one channel more: its moment is the mass.
    """
    channel = tl.arange(0, SUMS)[:, None, None]
    bytes = tl.load(y + channel * PLANE + centre[None], mask=channel < CHANNELS, other=0)
    return tl.where(channel < CHANNELS, bytes.to(tl.float32) - MIDDLE, 1.0)


@triton.jit
def _shares(least, other):
    """What sums relative to 2^-least and to 2^-other weigh together; is the other the nearer?"""
    rise = least - other
    weight = tl.exp2(-tl.abs(rise))
    nearer = rise > 0
    return tl.where(nearer, weight, 1.0), tl.where(nearer, 1.0, weight), nearer


@triton.jit
def _behind(least, other):
    """How far 2^-least and 2^-other lie behind the nearer of the two, in bits.

    0 where either is of no patch: it has no weight, of which infinitely much would be no number.
    """
    rise = tl.where((least < NOTHING) & (other < NOTHING), least - other, 0.0)
    return tl.maximum(rise, 0.0), tl.maximum(-rise, 0.0)


# One compilation for all sizes and sets: these are not worth one for each kind of number.
_PLAIN = ("images", "images_per_part", "shifts_per_part", "shifts_y", "shifts_x", "first_shift_y",
          "first_shift_x", "radius")  # fmt: skip


@triton.jit(do_not_specialize=_PLAIN)
def patch_sums(
    queries,  # float32 (b c h w), scaled so that box sums are -log2 weights
    pixels,  # uint8 (n c h w)
    steps,  # float32 (b,): what one grey level is on that scale
    partials,  # float32 (parts b numbers h w), written: moments in levels, mass, least -log2
    # weight and, with details, the sum of squared weights, the mass of the heaviest image, the
    # least -log2 weight of the other images than that of the least, and the sum of weights, each
    # times the bits that its patch is behind the least
    best,  # int32 (parts b 2 h w), written with details: image and place of the least as one
    # number, and of the least of the other images
    images,  # n
    images_per_part,
    shifts_per_part,
    shifts_y,
    shifts_x,
    first_shift_y,
    first_shift_x,
    radius,
    CHANNELS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    WRAPS: tl.constexpr,
    ROWS: tl.constexpr,  # of a tile
    COLUMNS: tl.constexpr,
    NEAR_Y: tl.constexpr,  # tiles that windows of a tile may reach into, along y
    NEAR_X: tl.constexpr,
    DETAILS: tl.constexpr,
    SUMS: tl.constexpr,  # a power of two above CHANNELS
):
    """One part of the images and displacements, seen by one tile of one query."""
    TILES_Y: tl.constexpr = (HEIGHT + ROWS - 1) // ROWS
    TILES_X: tl.constexpr = (WIDTH + COLUMNS - 1) // COLUMNS
    PLANE: tl.constexpr = HEIGHT * WIDTH
    query = tl.program_id(1)
    tile = tl.program_id(0) % (TILES_Y * TILES_X)
    part = tl.program_id(0) // (TILES_Y * TILES_X)
    tile_y, tile_x = tile // TILES_X, tile % TILES_X
    uy = tile_y * ROWS + tl.arange(0, ROWS)
    ux = tile_x * COLUMNS + tl.arange(0, COLUMNS)
    channel = tl.arange(0, SUMS)[:, None, None]

    x = queries + query * CHANNELS * PLANE
    step = tl.load(steps + query)
    least = tl.full((ROWS, COLUMNS), NOTHING, tl.float32)
    sums = tl.zeros((SUMS, ROWS, COLUMNS), tl.float32)

    # Displacements change fastest from part to part: those that run together share images.
    shifts = shifts_y * shifts_x
    blocks = tl.cdiv(shifts, shifts_per_part)
    first_shift = part % blocks * shifts_per_part
    first_image = part // blocks * images_per_part
    last_image = min(first_image + images_per_part, images)
    if DETAILS:
        # Image by image, with sums of its own: the part has all displacements.
        square = tl.zeros((ROWS, COLUMNS), tl.float32)
        nearest = tl.zeros((ROWS, COLUMNS), tl.int32)
        top = tl.zeros((ROWS, COLUMNS), tl.float32)
        mass = tl.zeros((ROWS, COLUMNS), tl.float32)
        energy = tl.zeros((ROWS, COLUMNS), tl.float32)
        second_least = tl.full((ROWS, COLUMNS), NOTHING, tl.float32)
        second = tl.zeros((ROWS, COLUMNS), tl.int32)
        for image in range(first_image, last_image):
            y = pixels + image * CHANNELS * PLANE
            own_least = tl.full((ROWS, COLUMNS), NOTHING, tl.float32)
            own_sums = tl.zeros((SUMS, ROWS, COLUMNS), tl.float32)
            own_square = tl.zeros((ROWS, COLUMNS), tl.float32)
            own_mass = tl.zeros((ROWS, COLUMNS), tl.float32)
            own_energy = tl.zeros((ROWS, COLUMNS), tl.float32)
            own_nearest = tl.zeros((ROWS, COLUMNS), tl.int32)
            for shift in range(shifts):
                sy, sx = first_shift_y + shift // shifts_x, first_shift_x + shift % shifts_x
                allowed, centre = _meeting(uy, ux, sy, sx, radius, HEIGHT, WIDTH, WRAPS)
                box = _boxes(x, y, step, tile_y, tile_x, uy, ux, sy, sx, radius, CHANNELS, HEIGHT,
                             WIDTH, WRAPS, ROWS, COLUMNS, NEAR_Y, NEAR_X)  # fmt: skip
                values = _values(y, centre, CHANNELS, PLANE, SUMS)
                box = tl.where(allowed, box, float("inf"))
                old_share, new_share, nearer = _shares(own_least, box)
                own_sums = own_sums * old_share[None] + new_share[None] * values
                own_square = own_square * old_share * old_share + new_share * new_share
                rise, behind = _behind(own_least, box)
                own_energy = (own_energy + rise * own_mass) * old_share + behind * new_share
                own_mass = own_mass * old_share + new_share
                own_least = tl.where(nearer, box, own_least)
                own_nearest = tl.where(nearer, image * PLANE + centre, own_nearest)
            old_share, new_share, nearer = _shares(least, own_least)
            sums = sums * old_share[None] + own_sums * new_share[None]
            square = square * old_share * old_share + own_square * new_share * new_share
            rise, behind = _behind(least, own_least)
            energy = (energy + rise * mass) * old_share + (
                own_energy + behind * own_mass
            ) * new_share
            mass = mass * old_share + own_mass * new_share
            top = tl.maximum(top * old_share, own_mass * new_share)
            other = own_least < second_least
            second = tl.where(nearer, nearest, tl.where(other, own_nearest, second))
            second_least = tl.where(nearer, least, tl.minimum(own_least, second_least))
            nearest = tl.where(nearer, own_nearest, nearest)
            least = tl.where(nearer, own_least, least)
    else:
        for shift in range(first_shift, min(first_shift + shifts_per_part, shifts)):
            sy, sx = first_shift_y + shift // shifts_x, first_shift_x + shift % shifts_x
            allowed, centre = _meeting(uy, ux, sy, sx, radius, HEIGHT, WIDTH, WRAPS)
            for image in range(first_image, last_image):
                y = pixels + image * CHANNELS * PLANE
                box = _boxes(x, y, step, tile_y, tile_x, uy, ux, sy, sx, radius, CHANNELS, HEIGHT,
                             WIDTH, WRAPS, ROWS, COLUMNS, NEAR_Y, NEAR_X)  # fmt: skip
                values = _values(y, centre, CHANNELS, PLANE, SUMS)
                old_share, new_share, nearer = _shares(least, tl.where(allowed, box, float("inf")))
                sums = sums * old_share[None] + new_share[None] * values
                least = tl.where(nearer, box, least)

    slot = part * tl.num_programs(1) + query
    out = partials + slot * (CHANNELS + 2 + 4 * DETAILS) * PLANE
    place = uy[:, None] * WIDTH + ux[None, :]
    inside = (uy < HEIGHT)[:, None] & (ux < WIDTH)[None, :]
    tl.store(out + channel * PLANE + place[None], sums, mask=inside[None] & (channel <= CHANNELS))
    tl.store(out + (CHANNELS + 1) * PLANE + place, least, mask=inside)
    if DETAILS:
        tl.store(out + (CHANNELS + 2) * PLANE + place, square, mask=inside)
        tl.store(out + (CHANNELS + 3) * PLANE + place, top, mask=inside)
        tl.store(out + (CHANNELS + 4) * PLANE + place, second_least, mask=inside)
        tl.store(out + (CHANNELS + 5) * PLANE + place, energy, mask=inside)
        tl.store(best + slot * 2 * PLANE + place, nearest, mask=inside)
        tl.store(best + (slot * 2 + 1) * PLANE + place, second, mask=inside)
