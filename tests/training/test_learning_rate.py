import pytest

from geopos_diffusers.training.learning_rate import learning_rate_factor


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_course_after_two_steps_of_warm_up(kind, expected):
    assert [learning_rate_factor(kind, step, 2, 6) for step in range(6)] == pytest.approx(expected, abs=1e-6)


def test_the_end_is_zero_and_stays_zero():
    assert learning_rate_factor("cosine", 10, 0, 10) == pytest.approx(0, abs=1e-12)
    assert learning_rate_factor("linear", 12, 0, 10) == 0


def test_a_warm_up_as_long_as_the_run():
    assert [learning_rate_factor("cosine", step, 4, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_unknown_kind():
    with pytest.raises(ValueError, match="not one of constant, linear, cosine"):
        learning_rate_factor("step", 1, 0, 2)
