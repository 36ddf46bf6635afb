"""How much each timestep counts in the denoising loss, as a function of its signal-to-noise ratio."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import ConfigError

if TYPE_CHECKING:  # options are checked before torch is imported
    from torch import Tensor

Weighting = Literal["none", "min_snr", "debiased", "p2"]
WEIGHTINGS: tuple[str, ...] = get_args(Weighting)
LOWEST_SNR = 1e-4  # debiased counts the error of predicted noise no more than 100 times


@dataclass(frozen=True)
class LossWeighting:
    """Weights by timestep, relative to the plain squared error of what the model predicts.

    kind: none weights all timesteps alike. min_snr: arXiv 2303.09556, section 3.4. debiased: 1 / sqrt(SNR) times the
        error of the noise, arXiv 2310.08442. p2: 1 / (k + SNR)^gamma times it, arXiv 2204.00227.
    snr_gamma: min_snr's cap on the ratio. p2_gamma, p2_k: exponent and offset of p2.
    """

    kind: Weighting = "none"
    snr_gamma: float = 5.0
    p2_gamma: float = 1.0
    p2_k: float = 1.0

    def __call__(self, scheduler: Any, timesteps: "Tensor") -> "Tensor | None":
        """Weights [B] >= 0 in float32, finite at a signal-to-noise ratio of zero too; None for weights of one.

        Args:
            scheduler: has `alphas_cumprod` and a prediction type of epsilon, v_prediction or sample. timesteps: [B].
        """
        if self.kind == "none":
            return None
        alphas = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        snr = alphas / (1 - alphas)
        prediction = scheduler.config.prediction_type
        if self.kind == "min_snr":
            capped = snr.clamp(max=self.snr_gamma)
            if prediction == "epsilon":
                return (self.snr_gamma / snr).clamp(max=1.0)  # capped / snr, and 1 at a ratio of zero
            return capped / (snr + 1) if prediction == "v_prediction" else capped
        # Weights of the noise's error. That of the sample is SNR times smaller, that of v SNR / (SNR + 1) times.
        if self.kind == "debiased":
            bounded = snr.clamp(min=LOWEST_SNR)
            weights = {"epsilon": bounded.rsqrt(), "v_prediction": snr.sqrt() / (snr + 1), "sample": snr.sqrt()}
            return weights[prediction]
        noise = (self.p2_k + snr) ** -self.p2_gamma
        return {"epsilon": noise, "v_prediction": noise * snr / (snr + 1), "sample": noise * snr}[prediction]


def choose_weighting(
    kind: Weighting | None = None,
    snr_gamma: float | None = None,
    p2_gamma: float | None = None,
    p2_k: float | None = None,
) -> LossWeighting:
    """The weighting that options ask for: snr_gamma alone means min_snr, p2_gamma or p2_k alone p2.

    Raises:
        ConfigError: a number that the weighting does not use.
    """
    numbers = {"snr_gamma": snr_gamma, "p2_gamma": p2_gamma, "p2_k": p2_k}
    given = {name: value for name, value in numbers.items() if value is not None}
    owners = {name: "min_snr" if name == "snr_gamma" else "p2" for name in numbers}
    for name in given:
        kind = kind or owners[name]  # type: ignore[assignment]
        if owners[name] != kind:
            raise ConfigError(f"{name} is a number of loss_weighting {owners[name]}; this run has {kind}")
    return LossWeighting(kind or "none", **given)
