import pytest
import torch
from diffusers.optimization import get_scheduler

from geopos_diffusers.training.learning_rate import SCHEDULES, learning_rate_factor

STEPS = 20


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
        ("rex", [0.5, 1, 1, 0.857143, 0.666667, 0.4]),
    ],
)
def test_course_after_two_steps_of_warm_up(kind, expected):
    assert [learning_rate_factor(kind, step, 2, 6) for step in range(6)] == pytest.approx(expected, abs=1e-6)


def reference(make, steps: int = STEPS) -> list[float]:
    """The rates that another library's scheduler gives an optimizer of peak 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


class TestAgainstOtherLibraries:
    @pytest.mark.parametrize(
        ("kind", "more"),
        [
            ("constant", {}),
            ("linear", {}),
            ("cosine", {}),
            ("cosine_with_restarts", {"cycles": 3}),
            ("polynomial", {"power": 2.0}),
        ],
    )
    @pytest.mark.parametrize("warmup", [0, 4])
    def test_diffusers(self, kind, more, warmup):
        named = {"num_cycles": more.get("cycles", 1), "power": more.get("power", 1.0)}
        theirs = reference(
            lambda optimizer: get_scheduler(
                "constant_with_warmup" if kind == "constant" else kind,
                optimizer,
                num_warmup_steps=warmup,
                num_training_steps=STEPS,
                **named,
            )
        )
        ours = [learning_rate_factor(kind, step, warmup, STEPS, **more) for step in range(STEPS)]
        # diffusers' first step of the warm-up does not move, and its polynomial ends at 1e-7.
        assert ours[warmup:] == pytest.approx(theirs[warmup:], abs=2e-7)
        assert ours[: max(0, warmup - 1)] == pytest.approx(theirs[1:warmup])

    def test_one_cycle_of_torch(self):
        theirs = reference(lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=STEPS))
        ours = [learning_rate_factor("one_cycle", step, 0, STEPS) for step in range(STEPS)]
        assert ours == pytest.approx(theirs)


def test_a_stable_schedule_falls_over_its_last_fifth():
    factors = [learning_rate_factor("warmup_stable_decay", step, 2, 12) for step in range(13)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0.5, 0])


@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_end_stays_and_no_step_exceeds_the_peak(kind):
    factors = [learning_rate_factor(kind, step, 3, 10) for step in range(14)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[10:] == [1.0] * 4 if kind == "constant" else max(factors[10:]) < 1e-5


def test_a_warm_up_as_long_as_the_run():
    assert [learning_rate_factor("cosine", step, 4, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_unknown_kind():
    with pytest.raises(ValueError, match="not one of constant, cosine, linear"):
        learning_rate_factor("step", 1, 0, 2)
