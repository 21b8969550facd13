"""The variants of each kernel that the library carries: Stable Diffusion 1.5's widths, and what ran fastest."""


def next_power(value):
    return 1 << (value - 1).bit_length()


def temporal_variant(rows, width):
    return {"rows": rows, "width": width, "padded": next_power(width)}, {"num_warps": 1 if rows == 16 else 4}


def attention_variants(width, capability=90):
    """Kernels of the gradient of attention over positions, for one width of heads. Data centres' cards have room for
    more loads at once; all others have 99 KiB of shared memory a block.
    """
    shape = {"width": width, "padded": next_power(width)}
    key = (128, 32, 3) if width == 40 else (64, 64, 2)
    return [
        ("attention_statistics", {**shape, "block": 64, "step": 64}, {"num_warps": 4, "num_stages": 3}),
        (
            "attention_query_gradient",
            {**shape, "block": 128, "step": 64},
            {"num_warps": 8, "num_stages": 3 if capability == 90 or width == 40 else 2},
        ),
        ("attention_key_gradient", {**shape, "block": key[0], "step": key[1]}, {"num_warps": 4, "num_stages": key[2]}),
    ]


def layer_norm_variants(channels):
    """The sum alone, and the norm: of a tensor or of a sum, with or without places."""
    shape, options = {"channels": channels, "padded": next_power(channels)}, {"num_warps": 1 if channels < 1280 else 2}
    yield "residual_sum", shape, options
    for sum, skips in ((0, 0), (1, 0), (1, 1)):
        for placed in (0, 1):
            yield "layer_norm", {**shape, "sum": sum, "skips": skips, "placed": placed}, options


def layer_norm_variant(channels):
    return {"channels": channels, "padded": next_power(channels), "block": 1}, {"num_warps": 1}


def group_norm_variants(per, silu):
    """The three passes of a group norm's gradient, for one number of channels a group."""
    padded = next_power(per)
    bundle = max(1, 64 // padded)
    shape = {"per": per, "padded": padded, "bundle": bundle, "block": 64}
    options = {"num_warps": 4 if padded <= 64 else 8}
    return [
        ("group_norm_statistics", shape, options),
        ("group_norm_sums", {**shape, "silu": silu}, options),
        ("group_norm_gradient", {**shape, "silu": silu}, options),
    ]


def geglu_variant():
    return {"block": 2048}, {"num_warps": 8}


def neighbour_sum_variant():
    return {"block": 1024}, {"num_warps": 4}


def every(capability):
    """(kernel, constants, options) of everything that is carried for a compute capability."""
    if capability == 90:
        # What these cards' matrix units of their own make faster.
        for width in (40, 80):
            yield from attention_variants(width, capability)
        return
    for width in (40, 80, 160):
        for rows in (16, 32):
            for name in ("temporal_attention", "temporal_attention_gradient"):
                yield name, *temporal_variant(rows, width)
    for width in (40, 80):
        yield from attention_variants(width, capability)
    for channels in (320, 640, 1280):
        yield "layer_norm_gradient", *layer_norm_variant(channels)
        yield from layer_norm_variants(channels)
    for per in (10, 20, 30, 40, 60, 80):
        for silu in (False, True):
            yield from group_norm_variants(per, silu)[0 if not silu else 1 :]
    yield "geglu_gradient", *geglu_variant()
    yield "neighbour_sum", *neighbour_sum_variant()
