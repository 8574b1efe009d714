"""What a run's record says beside its scores."""

from __future__ import annotations

from ftbench.training.run import term_means


def test_terms_are_means_of_what_is_finite() -> None:
    """A ratio over a zero gradient is infinite; it must not spoil the mean, nor the file, nor the report."""
    history = [
        {
            "step": 1,
            "loss": 1.0,
            "lr": 0.1,
            "grad_norm": 1.0,
            "epoch": 0.1,
            "kl": 0.5,
            "kl_gradient_ratio": float("inf"),
        },
        {"step": 2, "loss": 1.0, "lr": 0.1, "grad_norm": 1.0, "epoch": 0.2, "kl": 1.5, "noise": float("nan")},
        {"step": 2, "evaluation": {}},
    ]
    assert term_means(history) == {"kl": 1.0}
    assert term_means([]) == {}
