"""The loops of `pooled.py` in machine code: of each shape a function for every part of the work.

Each takes addresses, and the number of images last. Maps lie in memory as (n, height, width,
channels), those of a member's image in one piece, with room for one register behind it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from llvmlite import ir

from cifake.machine_code import BYTE, MOST_BITS, Code

_DEAD = 4
"""Stands where no pixel of a window passes a gradient on; 0 to 3 are its pixels, row by row."""

_CHANNELS = 6
"""Channels that are summed at once, two lines of each."""

_FULL = 0.75
"""Share of the lanes that channels side by side must fill to be faster than pixels are."""

_SUMS = 8
"""Registers of sums of channels side by side, which hide how long an addition takes; the compiler
runs out of registers for twice as many."""

_PARTED = 4
"""Registers of pixels that are taken apart into channels at once."""

_MOST_SUMS = 48
"""Registers of sums that a patch may take; more were not tried."""


@dataclass(frozen=True)
class Shape:
    """Everything but the number of images."""

    members: int
    """Networks side by side."""

    shared: bool
    """Whether they look at the same maps."""

    inputs: int
    """Channels of a member's maps."""

    outputs: int
    """Channels of a member's result."""

    kernel: tuple[int, int]
    padding: tuple[int, int]
    height: int
    """Of the maps, without padding."""

    width: int
    dtype: torch.dtype
    lanes: int
    """Numbers in a register."""

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the maps with their padding."""
        return self.height + 2 * self.padding[0], self.width + 2 * self.padding[1]

    @property
    def convolved(self) -> tuple[int, int]:
        """Height and width of the result before pooling."""
        (height, width), (rows, columns) = self.padded, self.kernel
        return height - rows + 1, width - columns + 1

    @property
    def pooled(self) -> tuple[int, int]:
        """Height and width of the result."""
        height, width = self.convolved
        return height // 2, width // 2

    @property
    def vectors(self) -> int:
        """Registers for one row of a patch, of which a part of the last can be idle."""
        return -(-self.kernel[1] * self.inputs // self.lanes)

    @property
    def fits(self) -> bool:
        """Whether there is a result, and a patch few enough registers."""
        return self.kernel[0] * self.vectors <= _MOST_SUMS and min(self.pooled) > 0

    @property
    def channels(self) -> int:
        """Of all members' results."""
        return self.members * self.outputs

    @property
    def together(self) -> bool:
        """Whether members look at the same maps, and all their channels fill registers well."""
        registers = len(_spans(self.channels, self.lanes))
        return self.shared and self.channels >= _FULL * registers * self.lanes

    @property
    def narrow(self) -> bool:
        """Whether so few channels come out that the general kernels leave lanes idle."""
        return not self.together and self.outputs < self.lanes

    @property
    def line(self) -> int:
        """Numbers from one line of a plane to the next, where a plane has one channel."""
        return -(-max(self.padded[1], self.lanes + self.kernel[1]) // self.lanes) * self.lanes

    @property
    def plane(self) -> int:
        """Numbers from one plane to the next."""
        return self.padded[0] * self.line

    @property
    def image(self) -> int:
        """Numbers of one padded image, and room for what a last register reads or adds beyond."""
        height, width = self.padded
        return height * width * self.inputs + self.lanes


@functools.cache
def apart(shape: Shape) -> Callable[..., None]:
    """From maps (n, height, width, channels of all members) to padded ones of each member.

    It copies a few numbers at a time, which torch is slow at.
    """
    code = Code("apart", ["together", "maps"], ["images"], shape.dtype)
    _copy(code, shape, "together", "maps")
    return code.compiled()


@functools.cache
def side_by_side(shape: Shape) -> Callable[..., None]:
    """The way back: from padded maps of each member to those of all, without padding."""
    code = Code("side_by_side", ["maps", "together"], ["images"], shape.dtype)
    _copy(code, shape, "maps", "together")
    return code.compiled()


def _copy(code: Code, shape: Shape, source: str, target: str) -> None:
    """Every pixel of maps that are together or apart, to the others."""
    members, inputs = 1 if shape.shared else shape.members, shape.inputs
    top, left = shape.padding
    line = shape.padded[1] * inputs
    # A line of all members at a time, which the nearest cache holds.
    with (
        code.loop(code.arguments["images"]) as image,
        code.loop(code.index(shape.height)) as row,
        code.loop(code.index(members)) as member,
        code.loop(code.index(shape.width)) as column,
    ):
        first = code.place((_image(code, shape, member, image), 1), (code.index(top), line))
        pixels = (image, shape.height * shape.width), (row, shape.width), (column, 1)
        steps = [(index, stride * members * inputs) for index, stride in pixels]
        inner = code.place((first, 1), (row, line), (column, inputs))
        places = {
            "together": code.place(*steps, (member, inputs)),
            "maps": code.build.add(inner, code.index(left * inputs)),
        }
        for start, count in _spans(inputs, shape.lanes):
            offset = code.index(start)
            value = code.load(source, code.build.add(places[source], offset), count)
            code.store(value, target, code.build.add(places[target], offset))


@functools.cache
def pool(shape: Shape) -> Callable[..., None]:
    """From maps (n, *convolved, channels) to pooled ones, and which pixel each number is from.

    Numbers that are none win, and stay, as they do in torch.
    """
    code = Code("pool", ["maps", "out", "which"], ["images"], shape.dtype)
    build = code.build
    channels = shape.channels
    (height, width), (rows, columns) = shape.convolved, shape.pooled
    pixels = [(row * width + column) * channels for row in (0, 1) for column in (0, 1)]
    with (
        code.loop(code.arguments["images"]) as image,
        code.loop(code.index(rows)) as row,
        code.loop(code.index(columns)) as column,
    ):
        steps = (image, height * width), (row, 2 * width), (column, 2)
        first = code.place(*((index, stride * channels) for index, stride in steps))
        target = _window(code, shape, image, row, column)
        for start, count in _spans(channels, shape.lanes):
            found = [
                code.load("maps", build.add(first, code.index(start + offset)), count)
                for offset in pixels
            ]
            best, which = _best(code, found)
            place = build.add(target, code.index(start))
            code.store(best, "out", place)
            code.store_bytes(which, "which", place)
    return code.compiled()


def _best(code: Code, pixels: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
    """ReLU of the largest of four vectors in each lane, and which it is, as bytes."""
    build, count = code.build, pixels[0].type.count
    bytes_ = ir.VectorType(BYTE, count)
    best, which = pixels[0], ir.Constant(bytes_, [0] * count)
    for number, value in enumerate(pixels[1:], 1):
        wins = build.or_(
            build.fcmp_ordered(">", value, best), build.fcmp_unordered("uno", value, value)
        )
        best = build.select(wins, value, best)
        which = build.select(wins, ir.Constant(bytes_, [number] * count), which)
    zero = code.constant(0.0, count)
    lives = build.fcmp_unordered(">", best, zero)
    dead = ir.Constant(bytes_, [_DEAD] * count)
    return build.select(lives, best, zero), build.select(lives, which, dead)


@functools.cache
def convolve(shape: Shape) -> Callable[..., None]:
    """Convolution, pooling and ReLU with the pixels of a line side by side in a register.

    Each image is first taken apart into planes of one channel.
    """
    addresses = ["maps", "kernels", "biases", "planes", "out", "which"]
    code = Code("convolve", addresses, ["images"], shape.dtype)
    (height, width), inputs = shape.padded, shape.inputs
    with (
        code.loop(code.index(shape.members)) as member,
        code.loop(code.arguments["images"]) as image,
    ):
        first = _image(code, shape, member, image)
        count = _pixels_at_once(shape)
        blocks = code.index(-(-width // count))
        with code.loop(code.index(height)) as row, code.loop(blocks) as block:
            column = code.least(code.place((block, count)), code.index(width - count))
            place = code.place((first, 1), (row, width * inputs), (column, inputs))
            pixels = code.load("maps", place, count * inputs)
            target = code.place((row, shape.line), (column, 1))
            for channel in range(inputs):
                place = code.build.add(target, code.index(channel * shape.plane))
                code.store(code.every(inputs, pixels, channel), "planes", place)
        with code.loop(code.index(shape.pooled[0])) as row:
            for blocks, outputs in _register_tiles(shape):
                _tile(code, shape, (member, image, row), blocks, outputs)
    return code.compiled()


@functools.cache
def convolve_together(shape: Shape) -> Callable[..., None]:
    """Convolution, pooling and ReLU of maps that all members look at.

    The channels of all members stand side by side in registers, a few of which are summed at once.
    So they do in the kernels, for each group of registers in turn (rows, columns, inputs, lanes),
    and in the biases, as `channels_of_lanes` says.
    """
    addresses = ["maps", "kernels", "biases", "out", "which"]
    code = Code("convolve_together", addresses, ["images"], shape.dtype)
    with (
        code.loop(code.arguments["images"]) as image,
        code.loop(code.index(shape.pooled[0])) as row,
    ):
        for registers in _registers_at_once(shape):
            pixels = max(1, _SUMS // (_DEAD * len(registers)))
            whole, rest = divmod(shape.pooled[1], pixels)
            with code.loop(code.index(whole)) as tile:
                column = code.place((tile, pixels))
                _windows(code, shape, (image, row, column), pixels, registers)
            if rest:
                column = code.index(whole * pixels)
                _windows(code, shape, (image, row, column), rest, registers)
    return code.compiled()


def channels_of_lanes(shape: Shape) -> list[list[int]]:
    """The channel in each lane, by groups; what is left of a lone register repeats the last."""
    spans, lanes = _spans(shape.channels, shape.lanes), range(shape.lanes)
    return [
        [min(spans[number][0] + lane, shape.channels - 1) for number in group for lane in lanes]
        for group in _registers_at_once(shape)
    ]


def _registers_at_once(shape: Shape) -> list[range]:
    """Numbers of the registers that are summed at once, three at most."""
    registers = len(_spans(shape.channels, shape.lanes))
    groups = -(-registers // 3)
    ends = [registers * number // groups for number in range(groups + 1)]
    return [range(start, end) for start, end in itertools.pairwise(ends)]


def _windows(
    code: Code,
    shape: Shape,
    at: tuple[ir.Value, ir.Value, ir.Value],
    count: int,
    registers: range,
) -> None:
    """Some channels of a few pooled pixels of a line.

    Args:
        code: that it belongs to.
        shape: of the operation.
        at: image, line and first column.
        count: pixels.
        registers: of channels, by number.
    """
    build, (image, row, column) = code.build, at
    line = shape.padded[1] * shape.inputs
    spans = _spans(shape.channels, shape.lanes)
    seen = [(lower, right) for lower in (0, 1) for right in range(2 * count)]
    places = {number: code.index(number * shape.lanes) for number in registers}
    sums = {
        (number, *pixel): code.variable(code.load("biases", place, shape.lanes))
        for pixel in seen
        for number, place in places.items()
    }
    corner = code.place((image, shape.image), (row, 2 * line), (column, 2 * shape.inputs))
    (rows, columns), lanes = shape.kernel, len(registers) * shape.lanes
    taps = columns * shape.inputs
    group = code.index(rows * taps * registers.start * shape.lanes)
    with code.loop(code.index(rows)) as down:
        maps = code.place((corner, 1), (down, line))
        kernels = code.place((group, 1), (down, taps * lanes))
        for tap in range(taps):
            factors = {
                number: code.load(
                    "kernels",
                    build.add(kernels, code.index(tap * lanes + position * shape.lanes)),
                    shape.lanes,
                )
                for position, number in enumerate(registers)
            }
            for lower, right in seen:
                offset = code.index(lower * line + right * shape.inputs + tap)
                pixel = code.load_number("maps", build.add(maps, offset))
                value = code.splat(pixel, shape.lanes)
                for number, factor in factors.items():
                    total = sums[number, lower, right]
                    build.store(code.add_product(factor, value, code.value(total)), total)
    for pixel in range(count):
        target = _window(code, shape, image, row, build.add(column, code.index(pixel)))
        window = [(lower, 2 * pixel + right) for lower in (0, 1) for right in (0, 1)]
        for number in registers:
            best, which = _best(code, [code.value(sums[number, *each]) for each in window])
            first, channels = spans[number]
            place = build.add(target, code.index(first))
            code.store(code.first(best, channels), "out", place)
            code.store_bytes(code.first(which, channels), "which", place)


def _pixels_at_once(shape: Shape) -> int:
    """Pixels of a line that are taken apart together: a register's, if with all channels in few."""
    return max(1, min(shape.lanes, shape.padded[1], _PARTED * shape.lanes // shape.inputs))


def _register_tiles(shape: Shape) -> list[tuple[list[int], list[int]]]:
    """First columns and channels of what is summed in registers at once, two lines of it."""
    # Two lines of them fill 24 of AVX-512's 32 registers, or 12 of the 16 that others have.
    room = 12 if shape.lanes * shape.dtype.itemsize == 64 else 6
    columns = 2 * shape.pooled[1]
    starts = [start for start, _ in _spans(columns, shape.lanes)]
    channels = [*range(shape.outputs)]
    groups = [channels[n : n + _CHANNELS] for n in range(0, len(channels), _CHANNELS)]
    together = max(1, room // _CHANNELS)
    return [
        (starts[n : n + together], group)
        for group in groups
        for n in range(0, len(starts), together)
    ]


def _tile(
    code: Code,
    shape: Shape,
    at: tuple[ir.Value, ir.Value, ir.Value],
    blocks: Sequence[int],
    outputs: Sequence[int],
) -> None:
    """Some channels of some columns of one pooled line.

    Args:
        code: that it belongs to.
        shape: of the operation.
        at: member, image and line.
        blocks: first columns, before pooling.
        outputs: channels.
    """
    build, width, (member, image, row) = code.build, shape.lanes, at
    channels = {
        output: code.place((member, shape.outputs), (code.index(output), 1)) for output in outputs
    }
    sums = {
        (output, line, block): code.variable(
            code.splat(code.load_number("biases", channels[output]), width)
        )
        for output in outputs
        for line in (0, 1)
        for block in blocks
    }
    rows, columns = shape.kernel
    with code.loop(code.index(shape.inputs)) as channel, code.loop(code.index(rows)) as down:
        line = code.place((channel, shape.plane), (row, 2 * shape.line), (down, shape.line))
        for right in range(columns):
            seen = {
                (lower, block): code.load(
                    "planes",
                    build.add(line, code.index(lower * shape.line + block + right)),
                    width,
                )
                for lower in (0, 1)
                for block in blocks
            }
            for output in outputs:
                steps = (channels[output], shape.inputs * rows * columns), (channel, rows * columns)
                place = code.place(*steps, (down, columns), (code.index(right), 1))
                factor = code.splat(code.load_number("kernels", place), width)
                for (lower, block), value in seen.items():
                    total = sums[output, lower, block]
                    build.store(code.add_product(factor, value, code.value(total)), total)
    target = _window(code, shape, image, row, code.index(0))
    for output in outputs:
        for block in blocks:
            lines = [code.value(sums[output, line, block]) for line in (0, 1)]
            halves = [code.every(2, line, odd) for line in lines for odd in (0, 1)]
            best, which = _best(code, halves)
            for lane in range(min(width // 2, shape.pooled[1] - block // 2)):
                place = code.place((target, 1), (channels[output], 1))
                pixel = (block // 2 + lane) * shape.channels
                place = build.add(place, code.index(pixel))
                code.store_number(code.lane(best, lane), "out", place)
                code.store_byte(code.lane(which, lane), "which", place)


def _spans(count: int, width: int) -> list[tuple[int, int]]:
    """Start and length of vectors that cover so many numbers; the last two may overlap."""
    if count <= width:
        return [(0, count)]
    starts = [*range(0, count - width, width), count - width]
    return [(start, width) for start in starts]


@functools.cache
def sum_patches(shape: Shape) -> Callable[..., None]:
    """Adds up the patches that the pooled gradient chose, each times its number.

    The sums of an image are made in registers and then added to those of all, which also keeps
    rounding small.
    """
    addresses = ["maps", "gradient", "which", "sums", "biases"]
    code = Code("sum_patches", addresses, ["images"], shape.dtype)
    build, images, width = code.build, code.arguments["images"], shape.lanes
    (rows, columns), registers = shape.pooled, shape.kernel[0] * shape.vectors
    with (
        code.loop(code.index(shape.members)) as member,
        code.loop(images) as image,
        code.loop(code.index(shape.outputs)) as output,
    ):
        channel = code.place((member, shape.outputs), (output, 1))
        maps = _image(code, shape, member, image)
        sums = [code.variable(code.constant(0.0, width)) for _ in range(registers)]
        bias = code.variable(ir.Constant(code.number, 0.0))
        with code.loop(code.index(rows)) as row, code.loop(code.index(columns)) as column:
            place = build.add(_window(code, shape, image, row, column), channel)
            which = code.load_byte("which", place)
            with build.if_then(build.icmp_unsigned("!=", which, code.index(_DEAD))):
                number = code.load_number("gradient", place)
                factor = code.splat(number, width)
                patch = _patch(code, shape, maps, (row, column), which)
                for total, offset in zip(sums, _offsets(shape), strict=True):
                    seen = code.load("maps", build.add(patch, code.index(offset)), width)
                    build.store(code.add_product(factor, seen, code.value(total)), total)
                build.store(build.fadd(code.value(bias), number), bias)
        for number, total in enumerate(sums):
            place = code.place((channel, registers * width), (code.index(number), width))
            whole = build.fadd(code.load("sums", place, width), code.value(total))
            code.store(whole, "sums", place)
        whole = build.fadd(code.load_number("biases", channel), code.value(bias))
        code.store_number(whole, "biases", channel)
    return code.compiled()


@functools.cache
def sum_kernels(shape: Shape) -> Callable[..., None]:
    """Adds up the kernels that the pooled gradient chose, each times its number, where they stood.

    Kernels of all channels that chose the same pixel are added in registers first. Where members
    look at the same maps, so do their gradients.
    """
    code = Code("sum_kernels", ["gradient", "which", "kernels", "sums"], ["images"], shape.dtype)
    build, images, width = code.build, code.arguments["images"], shape.lanes
    (rows, columns), registers = shape.pooled, shape.kernel[0] * shape.vectors
    with (
        code.loop(code.index(shape.members)) as member,
        code.loop(images) as image,
        code.loop(code.index(rows)) as row,
        code.loop(code.index(columns)) as column,
        code.loop(code.index(_DEAD)) as pixel,
    ):
        maps = _image(code, shape, member, image)
        window = _window(code, shape, image, row, column)
        first = code.place((window, 1), (member, shape.outputs))
        sums = [code.variable(code.constant(0.0, width)) for _ in range(registers)]
        for start in range(0, shape.outputs, MOST_BITS):
            count = min(MOST_BITS, shape.outputs - start)
            part = build.add(first, code.index(start))
            channel = code.place((member, shape.outputs), (code.index(start), 1))
            with code.each_bit(code.equal_bytes("which", part, count, pixel)) as output:
                factor = code.splat(code.load_number("gradient", build.add(part, output)), width)
                kernel = code.place((build.add(channel, output), registers * width))
                for number, total in enumerate(sums):
                    place = build.add(kernel, code.index(number * width))
                    value = code.load("kernels", place, width)
                    build.store(code.add_product(factor, value, code.value(total)), total)
        patch = _patch(code, shape, maps, (row, column), pixel)
        for total, offset in zip(sums, _offsets(shape), strict=True):
            place = build.add(patch, code.index(offset))
            whole = build.fadd(code.load("sums", place, width), code.value(total))
            code.store(whole, "sums", place)
    return code.compiled()


def _image(code: Code, shape: Shape, member: ir.Value, image: ir.Value) -> ir.Value:
    """Where a member's padded image begins."""
    if shape.shared:
        return code.place((image, shape.image))
    number = code.build.mul(member, code.arguments["images"])
    return code.place((number, shape.image), (image, shape.image))


def _window(code: Code, shape: Shape, image: ir.Value, row: ir.Value, column: ir.Value) -> ir.Value:
    """Where the channels of one pooled pixel begin."""
    rows, columns = shape.pooled
    steps = (image, rows * columns), (row, columns), (column, 1)
    return code.place(*((index, stride * shape.channels) for index, stride in steps))


def _patch(
    code: Code, shape: Shape, maps: ir.Value, window: tuple[ir.Value, ir.Value], pixel: ir.Value
) -> ir.Value:
    """Where the patch begins that one pixel of a window looks at."""
    row, column = window
    down = code.build.lshr(pixel, code.index(1))
    right = code.build.and_(pixel, code.index(1))
    line = shape.padded[1] * shape.inputs
    steps = (row, 2 * line), (down, line), (column, 2 * shape.inputs), (right, shape.inputs)
    return code.place((maps, 1), *steps)


def _offsets(shape: Shape) -> list[int]:
    """Where the registers of a patch begin, from its first number on."""
    line = shape.padded[1] * shape.inputs
    return [
        row * line + vector * shape.lanes
        for row in range(shape.kernel[0])
        for vector in range(shape.vectors)
    ]
