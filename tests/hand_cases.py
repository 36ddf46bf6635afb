"""Landmarks of proper right hands, made from joint angles. The palm faces -z, the fingers point along y, and the middle
finger's metacarpal has length 1."""

import numpy as np

KNUCKLES = np.array([[-0.32, 0.95], [0.0, 1.0], [0.25, 0.95], [0.48, 0.82]])
BONES = np.array([[0.45, 0.28, 0.2], [0.5, 0.32, 0.2], [0.46, 0.3, 0.2], [0.36, 0.22, 0.18]])
FAN = np.deg2rad([-8.0, -1.0, 6.0, 14.0])
THUMB = np.array([[-0.25, 0.2, -0.08], [-0.52, 0.42, -0.18], [-0.68, 0.64, -0.22], [-0.76, 0.84, -0.24]])


def right_hand(flexion: np.ndarray | float = 10.0, spread: float = 1.0) -> np.ndarray:
    """[21, 3]; flexion in degrees of index to pinky's three joints, a number or [4, 3]."""
    bends = np.broadcast_to(np.asarray(flexion, dtype=np.float64), (4, 3))
    hand = np.zeros((21, 3))
    hand[1:5] = THUMB
    for finger in range(4):
        place = np.array([*KNUCKLES[finger], -0.03])
        hand[5 + 4 * finger] = place
        for bone in range(3):
            bend, fan = np.deg2rad(bends[finger, : bone + 1].sum()), FAN[finger] * spread
            direction = [np.sin(fan) * np.cos(bend), np.cos(fan) * np.cos(bend), -np.sin(bend)]
            place = place + BONES[finger, bone] * np.array(direction)
            hand[6 + 4 * finger + bone] = place
    return hand


def many_hands(count: int, seed: int = 0, noise: float = 0.005) -> np.ndarray:
    """[count, 21, 3] hands of random poses and sizes, with noise."""
    generator = np.random.default_rng(seed)
    hands = [
        right_hand(generator.uniform(0.0, 60.0, (4, 1)) * np.array([0.8, 1.0, 0.6]), generator.uniform(0.5, 1.5))
        * generator.uniform(0.8, 1.2)
        for _ in range(count)
    ]
    return np.stack(hands) + generator.normal(scale=noise, size=(count, 21, 3))


def rotation(seed: int) -> np.ndarray:
    """A random rotation [3, 3]."""
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return matrix * np.sign(np.linalg.det(matrix))
