"""A pseudorandom order of any number of samples, one position at a time, in no memory.

A Feistel network permutes the numbers of an even number of bits; positions that it sends outside the range are sent on
until they land within ("cycle walking": Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002).
"""

ROUNDS = 6
MASK = 2**64 - 1


def permuted(position: int, size: int, key: int) -> int:
    """Where a permutation of range(size), which is a function of `key`, sends `position`."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    value = position
    while True:
        left, right = value >> half, value & low
        for turn in range(ROUNDS):
            left, right = right, left ^ (_mixed(right ^ _mixed(key + turn)) & low)
        value = left << half | right
        if value < size:
            return value


def _mixed(value: int) -> int:
    """64 bits of which each depends on all of `value`: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK
    return value ^ value >> 31
