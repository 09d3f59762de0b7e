"""The compiled loops of `fused`: one pass from the stored voxels to the patch.

A patch voxel p looks at box position `first + matrix @ p`. Positions are computed in float64, in the
order in which SciPy adds them up, so that the nearest voxel of a mask is the same one; weights are float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

from megavox.core.compiled import njit

# Sums may be contracted and reordered; infinite limits ("no clipping") must keep their meaning.
_FAST = {"contract", "reassoc", "nsz", "arcp"}
_TILE = 16
_F, _I, _U = np.float32, np.int32, np.uint32  # integer arithmetic widens in Numba: each result is narrowed


@njit(cache=True, nogil=True)
def look(matrix: Any, centre: Any, patch: Any, shape: Any, flat: int, margin: int, neighbour: float) -> Any:
    """Where a patch looks: `apply.source_box` and `apply.is_permutation`, and what else follows from the matrix.

    Args:
        matrix, centre: `(3, 3)` and `(3,)`, patch voxel p looks at image position `centre + matrix @ (p - middle)`.
        patch, shape: `(3,)` whole numbers.
        flat: how many of the first axes an image has not; they have one voxel.
        margin: voxels around what is looked at.
        neighbour: voxels from a position to those it is interpolated from, at the most.

    Returns:
        start, stop of the box; box position of patch voxel 0; whether the patch looks at whole voxels; whether at
        nothing outside; where the box begins within all that is looked at, with the margin, and the size of that;
        slabs of the image, for `CaseReader.image`.
    """
    start, stop, corner, size = np.empty((4, 3), np.int64)
    first = np.empty(3)
    wanted = np.empty((3, 4))
    permutes = inside = True
    for axis in range(3):
        reach = at = 0.0
        ones = 0
        for k in range(3):
            step, half = matrix[axis, k], (patch[k] - 1) / 2
            reach += abs(step) * half
            at += step * half
            whole = np.rint(step)
            permutes &= abs(step - whole) < 1e-9 and abs(whole) <= 1
            ones += abs(whole) == 1
        permutes &= ones == 1
        start[axis] = min(max(int(np.floor(centre[axis] - reach + 1e-6)), 0), shape[axis] - 1)
        stop[axis] = min(max(int(np.ceil(centre[axis] + reach - 1e-6)) + 1, start[axis] + 1), shape[axis])
        first[axis] = centre[axis] - at - start[axis]
        permutes &= abs(first[axis] - np.rint(first[axis])) < 1e-6
        inside &= centre[axis] - reach > -0.5 and centre[axis] + reach < shape[axis] - 0.5
        begin = 0 if axis < flat else min(int(np.floor(centre[axis] - reach)) - margin, start[axis])
        end = 1 if axis < flat else max(int(np.ceil(centre[axis] + reach)) + 2 + margin, stop[axis])
        corner[axis], size[axis] = start[axis] - begin, end - begin
    volume = 0.0
    for k in range(3):  # rows of the inverse are cross products of columns
        a, b = matrix[:, (k + 1) % 3], matrix[:, (k + 2) % 3]
        for axis in range(3):
            i, j = (axis + 1) % 3, (axis + 2) % 3
            wanted[k, axis] = a[i] * b[j] - a[j] * b[i]
    for axis in range(3):
        volume += wanted[0, axis] * matrix[axis, 0]
    for k in range(3):
        widest, offset = 0.0, 0.0
        for axis in range(3):
            wanted[k, axis] /= volume
            widest += abs(wanted[k, axis])
            offset -= wanted[k, axis] * centre[axis]
        wanted[k, 3] = offset
        wanted[k] /= (patch[k] - 1) / 2 + widest * neighbour
    return start, stop, first, permutes, inside, corner, size, wanted


@njit(cache=True, nogil=True, inline="always")
def _normal(value: Any, low: Any, high: Any, centre: Any, factor: Any) -> Any:
    return (min(max(_F(value), low), high) - centre) * factor


@njit(cache=True, nogil=True, fastmath=_FAST)
def normalise_into(source: Any, low: Any, high: Any, centre: Any, factor: Any, out: Any, corner: Any) -> None:
    """`(clip(source, low, high) - centre) * factor` into an array as large or larger, from its voxel `corner` on.

    Both `(Z, Y, X)` and C-contiguous; the source of any stored type, `out` float32.
    """
    width, row, line = source.shape[2], out.shape[2], out.shape[1] * out.shape[2]
    values, flat = source.reshape(-1), out.reshape(-1)
    for z in range(source.shape[0]):
        for y in range(source.shape[1]):
            begin = np.uintp((corner[0] + z) * line + (corner[1] + y) * row + corner[2])
            at = np.uintp((z * source.shape[1] + y) * width)
            for x in range(np.uintp(width)):
                flat[begin + x] = _normal(values[at + x], low, high, centre, factor)


@njit(cache=True, nogil=True, fastmath=_FAST)
def interpolate(box: Any, matrix: Any, first: Any, out: Any) -> None:
    """One channel of a patch, linearly interpolated.

    Args:
        box: `(Z, Y, X)` float32, C-contiguous, with both neighbours of every position; Z = 1 for a picture.
        matrix, first: `(3, 3)` and `(3,)` float64; positions are not negative.
        out: `(Z, Y, X)` float32.
    """
    flat, width = box.reshape(-1), out.shape[2]
    row, line = _I(box.shape[2]), _I(box.shape[1] * box.shape[2])
    right, down = np.uintp(1), np.uintp(row)
    below = np.uintp(0) if box.shape[0] == 1 else np.uintp(line)
    dz, dy, dx = _F(matrix[0, 2]), _F(matrix[1, 2]), _F(matrix[2, 2])
    places = np.empty(width, np.int32)
    wz, wy, wx = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for z in range(out.shape[0]):
        for y in range(out.shape[1]):
            z0 = _F(first[0] + z * matrix[0, 0] + y * matrix[0, 1])
            y0 = _F(first[1] + z * matrix[1, 0] + y * matrix[1, 1])
            x0 = _F(first[2] + z * matrix[2, 0] + y * matrix[2, 1])
            for x in range(np.uintp(width)):  # in wide registers; the look-ups of the second loop cannot be
                fz, fy, fx = z0 + dz * _F(x), y0 + dy * _F(x), x0 + dx * _F(x)
                iz, iy, ix = _I(fz), _I(fy), _I(fx)
                wz[x], wy[x], wx[x] = fz - _F(iz), fy - _F(iy), fx - _F(ix)
                places[x] = _I(_I(iz * line) + _I(iy * row) + ix)
            into = out[z, y]
            for x in range(np.uintp(width)):
                a = np.uintp(_U(places[x]))
                b, c = a + down, a + below
                d, t = c + down, wx[x]
                a0, b0, c0, d0 = flat[a], flat[b], flat[c], flat[d]
                a0 += t * (flat[a + right] - a0)
                b0 += t * (flat[b + right] - b0)
                c0 += t * (flat[c + right] - c0)
                d0 += t * (flat[d + right] - d0)
                a0 += wy[x] * (b0 - a0)
                c0 += wy[x] * (d0 - c0)
                into[x] = a0 + wz[x] * (c0 - a0)


@njit(cache=True, nogil=True)
def nearest(box: Any, matrix: Any, first: Any, corner: Any, out: Any) -> None:
    """The nearest voxels, `out` `(Z, Y, X)` of the box's type.

    Args:
        box: `(Z, Y, X)`, C-contiguous; its voxel `corner` is at position 0.
        matrix, first: as for `interpolate`; positions may be negative, down to where the box begins.
    """
    flat, width = box.reshape(-1), out.shape[2]
    row, line = _I(box.shape[2]), _I(box.shape[1] * box.shape[2])
    begin = _I(corner[0] * line + corner[1] * row + corner[2])
    places = np.empty(width, np.int32)
    for z in range(out.shape[0]):
        for y in range(out.shape[1]):
            z0 = first[0] + z * matrix[0, 0] + y * matrix[0, 1]
            y0 = first[1] + z * matrix[1, 0] + y * matrix[1, 1]
            x0 = first[2] + z * matrix[2, 0] + y * matrix[2, 1]
            for x in range(np.uintp(width)):
                iz = _I(np.floor(z0 + _I(x) * matrix[0, 2] + 0.5))
                iy = _I(np.floor(y0 + _I(x) * matrix[1, 2] + 0.5))
                ix = _I(np.floor(x0 + _I(x) * matrix[2, 2] + 0.5))
                places[x] = _I(_I(_I(iz * line) + _I(iy * row)) + _I(ix + begin))
            into = out[z, y]
            for x in range(np.uintp(width)):
                into[x] = flat[np.uintp(_U(places[x]))]


def _changed(value: Any, how: Any) -> Any:
    """A voxel of an image, normalised; one of a mask, for which `how` is empty, as it is."""
    raise NotImplementedError("compiled code only")


@overload(_changed, inline="always")
def _changed_by(value, how):  # type: ignore[no-untyped-def]  # Numba compares the signature with the lambdas'
    if len(how):
        return lambda value, how: _normal(value, how[0], how[1], how[2], how[3])
    return lambda value, how: value


@njit(cache=True, nogil=True, inline="always")
def _line(flat: Any, at: Any, forward: bool, how: Any, out: Any, begin: Any, step: Any, count: Any) -> None:
    """`out[begin + n * step] = flat[at + n]`, or `flat[at - n]`; unsigned places need no look for negative ones."""
    if forward:
        for n in range(count):
            out[begin + n * step] = _changed(flat[at + n], how)
    else:
        for n in range(count):
            out[begin + n * step] = _changed(flat[at - n], how)


@njit(cache=True, nogil=True)
def turn(flat: Any, begin: int, strides: Any, how: Any, out: Any) -> None:
    """`out[z, y, x] = flat[begin + z * strides[0] + y * strides[1] + x * strides[2]]`: axes swapped and flipped.

    An image is normalised by `how`, the four numbers of `normalise_into`; for a mask it is empty. One of the
    strides is 1 or -1. Where that is not the last, small tiles go through a buffer, so that memory is read and
    written along its lines.
    """
    depth, height, width = out.shape
    dz, dy, dx = strides
    into, one = out.reshape(-1), np.uintp(1)
    if abs(dx) == 1:
        starts = begin + dy * np.arange(height)  # in memory: LLVM would ask once for all rows whether vectors may be
        for z in range(depth):  # used, and say no where dy is negative
            for y in range(height):
                _line(flat, np.uintp(starts[y] + z * dz), dx == 1, how, into,
                      np.uintp((z * height + y) * width), one, np.uintp(width))
        return
    along_y = abs(dy) == 1
    lines, line = (height, dy) if along_y else (depth, dz)
    others, other = (depth, dz) if along_y else (height, dy)
    tile = np.empty(_TILE * _TILE, flat.dtype)
    for n in range(others):
        for i0 in range(0, lines, _TILE):
            rows = np.uintp(min(_TILE, lines - i0))
            for x0 in range(0, width, _TILE):
                columns = min(_TILE, width - x0)
                for x in range(columns):
                    at = np.uintp(begin + n * other + i0 * line + (x0 + x) * dx)
                    if rows == np.uintp(_TILE):  # a loop of known length is unrolled
                        _line(flat, at, line == 1, (), tile, np.uintp(x), np.uintp(_TILE), np.uintp(_TILE))
                    else:
                        _line(flat, at, line == 1, (), tile, np.uintp(x), np.uintp(_TILE), rows)
                for i in range(rows):
                    row = n * height + i0 + i if along_y else (i0 + i) * height + n
                    _line(tile, np.uintp(i * _TILE), True, how, into, np.uintp(row * width + x0), one,
                          np.uintp(columns))


@njit(cache=True, nogil=True, inline="always")
def _mixed(x: Any) -> Any:
    """A bijection of 32 bits whose output bits look independent ("lowbias32" of C. Wellons, 2018)."""
    a = _U(x ^ (x >> _U(16)))
    b = _U(a * _U(0x7FEB352D))
    c = _U(b ^ (b >> _U(15)))
    d = _U(c * _U(0x846CA68B))
    return _U(d ^ (d >> _U(16)))


@njit(cache=True, nogil=True, inline="always")
def _radius(bits: Any) -> Any:
    """`sqrt(-2 log((bits // 2 + 0.5) / 2**23))`, whose argument is exact in float32.

    The logarithm is S. Moshier's of Cephes, single precision.
    """
    raw = np.float32((_F(_I(bits >> _U(1))) + _F(0.5)) * _F(2.0**-23)).view(np.int32)
    exponent = _I(_I(raw - _I(0x3F3504F3)) >> _I(23))  # mantissa in [sqrt(1/2), sqrt(2))
    m = np.int32(raw - _I(exponent << _I(23))).view(np.float32) - _F(1)
    p = _F(7.0376836292e-2)
    p = p * m + _F(-1.1514610310e-1)
    p = p * m + _F(1.1676998740e-1)
    p = p * m + _F(-1.2420140846e-1)
    p = p * m + _F(1.4249322787e-1)
    p = p * m + _F(-1.6668057665e-1)
    p = p * m + _F(2.0000714765e-1)
    p = p * m + _F(-2.4999993993e-1)
    p = p * m + _F(3.3333331174e-1)
    logarithm = m + m * m * (p * m - _F(0.5)) + _F(exponent) * _F(0.6931471805599453)
    return np.sqrt(max(_F(-2) * logarithm, _F(0)))


@njit(cache=True, nogil=True, inline="always")
def _turned_by(radius: Any, bits: Any) -> Any:
    """`radius * (cos, sin)` of the angle `2 pi (bits + 0.5) / 2**24`; error below 1e-6 of the radius.

    Half a turn is `pi (s + 0.5)` with s in [-0.5, 0.5), the other half its negative; the polynomials of
    `sin(pi s)` and `cos(pi s)` were fitted by least squares at Chebyshev's nodes.
    """
    half = _I(bits & _U(0x7FFFFF))
    length = -radius if bits & _U(0x800000) else radius
    s = (_F(half) + _F(0.5)) * _F(2.0**-23) - _F(0.5)
    v = s * s
    sine = ((_F(-0.55460885) * v + _F(2.54188707)) * v - _F(5.1671413)) * v + _F(3.14158198)
    cosine = (((_F(0.21968961) * v - _F(1.33187657)) * v + _F(4.05841135)) * v - _F(4.93479283)) * v + _F(0.99999995)
    return -length * (sine * s), length * cosine


@njit(cache=True, nogil=True, inline="always")
def _bits(number: Any, low_key: Any, high_key: Any) -> Any:
    return _U(_mixed(_U(_mixed(_U(_U(number) + low_key)) ^ high_key)) >> _U(8))


@njit(cache=True, nogil=True, fastmath={"contract", "nsz"})
def add_noise(out: Any, deviation: Any, low_key: Any, high_key: Any, gain: Any, offset: Any) -> None:
    """`(out + noise) * gain + offset` for `out`, one-dimensional float32.

    The noise is Gaussian, a function of the key and the voxel's number alone.
    """
    half, scale = np.uintp((out.size + 1) // 2), _F(deviation * gain)
    for n in range(np.uintp(out.size // 2)):
        first = _U(_U(n) * _U(2))
        a, b = _turned_by(_radius(_bits(first, low_key, high_key)), _bits(_U(first + _U(1)), low_key, high_key))
        out[n] = out[n] * gain + (scale * a + offset)
        out[half + n] = out[half + n] * gain + (scale * b + offset)
    if out.size % 2:
        first = _U(_U(half - np.uintp(1)) * _U(2))
        a, b = _turned_by(_radius(_bits(first, low_key, high_key)), _bits(_U(first + _U(1)), low_key, high_key))
        out[half - np.uintp(1)] = out[half - np.uintp(1)] * gain + (scale * a + offset)


@njit(cache=True, nogil=True, fastmath={"contract"})
def scale(out: Any, gain: Any, offset: Any) -> None:
    """`out * gain + offset` for `out`, one-dimensional float32."""
    for n in range(np.uintp(out.size)):
        out[n] = out[n] * gain + offset
