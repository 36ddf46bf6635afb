import numpy as np
import pytest

from geopos_diffusers.data.captions import describe_face
from geopos_diffusers.data.expressions import EXPRESSIONS
from geopos_diffusers.data.faces import FaceOptions, FaceRenderer, render_faces
from geopos_diffusers.errors import DataError

ATTRIBUTES = {
    "expression": "smiling",
    "age": "old",
    "gender": "female",
    "yaw": 30.0,
    "pitch": -20.0,
    "tone": "brown",
    "background": "green",
}


@pytest.fixture(scope="module")
def faces():
    return list(FaceRenderer(48, 2).draw(0, 48))


def test_box_holds_the_head_inside_the_image(faces):
    for face in faces:
        x0, y0, x1, y1 = face.attributes["box"]
        assert 0 <= x0 < x1 <= 48
        assert 0 <= y0 < y1 <= 48
        assert max(x1 - x0, y1 - y0) > 0.7 * 48
        # The neck goes on below the box: nothing of the head is above it or beside it.
        assert face.mask[: int(y0)].max(initial=0) == 0


def test_depth_is_where_the_mask_is(faces):
    for face in faces:
        assert ((face.depth > 0) == (face.mask > 0)).all()
        assert face.depth[face.mask > 0].min() > 8


def test_attributes_vary(faces):
    for name, least in (("expression", 8), ("age", 4), ("gender", 2), ("tone", 4)):
        assert len({face.attributes[name] for face in faces}) >= least


def test_an_expression_moves_the_face():
    still, moving = (FaceRenderer(48, 7, FaceOptions(expressions=(name,))) for name in ("neutral", "mouth open"))
    (first,), (second,) = (list(renderer.draw(0, 1)) for renderer in (still, moving))
    assert first.attributes["yaw"] == second.attributes["yaw"]
    assert np.abs(np.asarray(first.image, float) - np.asarray(second.image, float)).max() > 40


def test_an_index_gives_the_same_face_from_any_start(faces):
    ((image, attributes),) = render_faces(1, 48, seed=2, start=40)
    assert image.tobytes() == faces[40].image.tobytes()
    assert attributes == faces[40].attributes


def test_every_expression_names_known_actions():
    from anny.models.facial_actions import FACIAL_ACTION_LABELS

    known = set(FACIAL_ACTION_LABELS)
    assert all(set(actions) <= known for actions in EXPRESSIONS.values())


@pytest.mark.parametrize(
    "words",
    ["old woman", "smil", "brown skin", "on a green background", "turned to the right and looking down"],
)
def test_captions_mention_every_attribute(words):
    texts = [describe_face(ATTRIBUTES, np.random.default_rng(seed)) for seed in range(200)]
    assert sum(words in text for text in texts) > 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expressions": ("bored",)}, "expressions: bored given"),
        ({"max_yaw": 200.0}, "max_yaw is 200.0"),
        ({"ages": ()}, "ages: nothing given"),
        ({"nose": 1}, "unknown option 'nose'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(DataError, match=message):
        render_faces(1, 48, 0, **options)
