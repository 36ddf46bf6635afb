import pytest
from experiments.reported_command import reported_command


def test_command_has_no_folders_of_the_machine():
    command = reported_command(
        ["/home/me/scripts/experiments/gan/run.py", "--output", "/home/me/runs", "--seeds", "0", "a b"]
    )
    assert command == "python -m scripts.experiments.gan.run --output runs --seeds 0 'a b'"


@pytest.mark.parametrize(
    "option", [["--results-only"], ["--results_only", "true"], ["--finished-only=True"], ["--overwrite"]]
)
def test_command_is_the_one_that_trains(option):
    assert reported_command(["x.py", *option, "--width", "8"]) == "python scripts/x.py --width 8"
    assert reported_command(["x.py", "--width", "8", *option]) == "python scripts/x.py --width 8"
