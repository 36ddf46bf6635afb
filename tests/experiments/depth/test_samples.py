import numpy as np
import torch
from experiments.depth.samples import CELL, color_depth, depth_sheet

from geopos_diffusers.images.contact_sheet import MARGIN


def test_colors_go_from_near_to_far_and_leave_the_background_grey():
    true = np.array([[2.0, 3.0], [4.0, 0.0]])
    near, far = np.asarray(color_depth(true, true), float)[[0, 1], [0, 0]]
    assert near[0] > far[0]  # yellow has more red
    assert far[2] > near[2]
    assert np.asarray(color_depth(true * 5, true))[1, 1].tolist() == [216, 216, 216]
    assert not np.array_equal(color_depth(true * 1.1, true), color_depth(true, true))


def test_sheet_has_a_column_an_image_and_a_row_for_each_network():
    images, depth = torch.zeros(3, 3, 16, 16), torch.full((3, 1, 16, 16), 2.0)
    sheet = depth_sheet(images, depth, {"a": depth, "b": 1.1 * depth})
    assert sheet.width == 3 * (CELL + MARGIN) + MARGIN
    assert sheet.height > 4 * CELL
    assert sheet.mode == "P"
