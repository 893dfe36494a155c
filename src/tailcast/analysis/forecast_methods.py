"""Which law do measured risks suggest for a query not yet seen? One function for each method.

bayes       every estimate's own uncertainty, a Pareto tail: stats.noisy_tail
pot         peaks over threshold on log odds, from the estimates taken as exact
jones       Jones et al. 2025 (arXiv 2502.16797), section 3.3: a line through the ten largest
notebook    what the code of Angell et al. 2026 does: the empirical law, to the power n
log-normal  the baseline of Jones et al.: -log p is log-normal
gumbel      -log(-log p) is Gumbel, all queries fitted by moments
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailcast.analysis.measured import Measured
from tailcast.errors import DataError
from tailcast.stats.extremes import SHAPE_PRIOR, TailFit, fit_tail, log_survival
from tailcast.stats.noisy_tail import fit_noisy_tail
from tailcast.stats.risk_laws import EDGES, RiskLaws, log_odds
from tailcast.stats.thresholds import candidate_fits, forward_stop, goodness_of_fit, stable_from

__all__ = ["METHODS", "Fitted", "Threshold", "double_log"]

_FINE = np.linspace(-30.0, 20.0, 1001)
_TOP = 10  # of Jones et al.
_LAWS = 200
_DISCOVERY_RATE = 0.1


@dataclass(frozen=True)
class Threshold:
    """One line of a threshold stability table.

    Attributes:
        fit: The tail above it.
        p_value: Of the Anderson-Darling test.
        chosen: Whether the automatic rule took it.
        stable: Whether it is the lowest that all higher ones agree with.
    """

    fit: TailFit
    p_value: float
    chosen: bool
    stable: bool


@dataclass(frozen=True)
class Fitted:
    """What a method makes of the measured queries.

    Attributes:
        laws: Laws of an unseen query's risk.
        uncertain: Whether the laws carry the uncertainty of the fit.
        excesses: Values above the threshold, less it, for profile likelihood; None otherwise.
        tail: The tail that was fitted, if it was a point.
        thresholds: All that were tried.
        warnings: What to know of this fit.
    """

    laws: RiskLaws
    uncertain: bool = False
    excesses: NDArray[np.float64] | None = None
    tail: TailFit | None = None
    thresholds: tuple[Threshold, ...] = ()
    warnings: tuple[str, ...] = ()


def double_log(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Psi = -log(-log p) of log odds: the score of Jones et al., section 3.3."""
    from scipy.special import log_expit

    return np.asarray(-np.log(-log_expit(odds)))


def bayes(measured: Measured) -> Fitted:
    """See :mod:`tailcast.stats.noisy_tail`; wordings of one request count for less than others."""
    worth = measured.independent / len(measured)
    found = fit_noisy_tail(measured.hits, measured.draws, worth=worth)
    return Fitted(found.laws, uncertain=True)


def peaks_over_threshold(measured: Measured) -> Fitted:
    """A generalised Pareto tail of the log odds; the threshold by Bader et al. (2018).

    Thresholds are judged by plain maximum likelihood; above the chosen one the likelihood is
    penalised by :data:`tailcast.stats.extremes.SHAPE_PRIOR`, without which the worst of 300 n
    queries is foretold half a decade too low (``docs/forecast.md``).

    The laws stand for the fit's uncertainty: tails by the asymptotic law of maximum likelihood
    (Smith 1987), shares by their beta law, bodies by the Bayesian bootstrap. Return levels and
    the worst query get profile-likelihood intervals instead, from ``excesses``.

    Raises:
        DataError: If too few queries had hits to fit a tail to.
    """
    values = log_odds(measured.risks)
    fits = candidate_fits(values, usable=int(measured.seen.sum()))
    if not fits:
        raise DataError(
            f"only {int(measured.seen.sum())} of {len(measured)} queries had hits, too few to "
            "fit a tail to: draw more samples."
        )
    p_values = [goodness_of_fit(values, one) for one in fits]
    chosen = min(forward_stop(p_values, rate=_DISCOVERY_RATE), len(fits) - 1)
    stable = stable_from(fits)
    fit = fit_tail(values, fits[chosen].threshold, prior=SHAPE_PRIOR)
    rows = zip(fits, p_values, strict=True)
    table = [Threshold(one, p, k == chosen, k == stable) for k, (one, p) in enumerate(rows)]
    warnings = []
    if fit.excesses < 200:
        warnings.append(
            f"{fit.excesses} queries above the threshold: below 200 the tail's shape owes much to "
            "the prior (-0.1 +- 0.15 on log odds)"
        )
    if stable > chosen:
        warnings.append(
            "shapes at higher thresholds disagree with the chosen one's: see the threshold table"
        )
    excesses = values[values > fit.threshold] - fit.threshold
    laws = _tail_laws(_with_zeros(measured), fit)
    return Fitted(laws, True, excesses, fit, tuple(table), tuple(warnings))


def jones(measured: Measured) -> Fitted:
    """Log S(psi) = a psi + b by least squares on log(i / m) of the ten largest psi.

    The paper does not print its plotting position; i / m is what its re-implementations take.
    Q_psi(n) = -(log n + b) / a is the level that this law exceeds with probability 1 / n.

    Raises:
        DataError: If fewer than ten queries had hits, or the ten largest risks are the same.
    """
    if measured.seen.sum() < _TOP:
        raise DataError(f"{int(measured.seen.sum())} queries had hits: the line takes the top ten.")
    values = np.sort(log_odds(measured.risks))[::-1]
    top, place = double_log(values[:_TOP]), np.log(np.arange(1, _TOP + 1) / len(values))
    spread = top - top.mean()
    if not np.ptp(top) > 0:
        raise DataError("the ten largest risks are the same: no line goes through them.")
    slope = float(spread @ place / (spread @ spread))
    line = np.exp(np.minimum(slope * (double_log(_FINE) - top.mean()) + place.mean(), 0.0))
    above = values[_TOP - 1]
    survival = np.where(above <= _FINE, line, _steps(_with_zeros(measured)))
    return Fitted(_one_law(np.minimum.accumulate(survival)))


def notebook(measured: Measured) -> Fitted:
    """The empirical law: P(max over n > tau) = 1 - F(tau)^n, which ends at the largest risk."""
    return Fitted(_one_law(_steps(_with_zeros(measured))))


def log_normal(measured: Measured) -> Fitted:
    """Psi is normal; queries without hits count with half a hit."""
    from scipy.stats import norm

    scores = double_log(log_odds(measured.risks))
    spread = max(float(scores.std(ddof=1)), 1e-9)
    return Fitted(_one_law(norm.sf(double_log(_FINE), scores.mean(), spread)))


def gumbel(measured: Measured) -> Fitted:
    """Psi is Gumbel, by its mean and deviation; queries without hits count with half a hit."""
    scores = double_log(log_odds(measured.risks))
    scale = max(float(scores.std(ddof=1)), 1e-9) * np.sqrt(6) / np.pi
    centre = scores.mean() - np.euler_gamma * scale
    falling = np.exp(np.minimum(-(double_log(_FINE) - centre) / scale, 700.0))
    return Fitted(_one_law(-np.expm1(-falling)))


METHODS: dict[str, Callable[[Measured], Fitted]] = {
    "bayes": bayes,
    "pot": peaks_over_threshold,
    "jones": jones,
    "notebook": notebook,
    "log-normal": log_normal,
    "gumbel": gumbel,
}
"""The first is the one to rely on (``benchmarks/results/forecast.md``)."""


def _one_law(survival: NDArray[np.float64]) -> RiskLaws:
    return RiskLaws(_FINE, survival[None], np.ones(1))


def _with_zeros(measured: Measured) -> NDArray[np.float64]:
    """Log odds with queries without hits at the lower end, so that their mean is unbiased."""
    return np.where(measured.seen, log_odds(measured.risks), EDGES[0])


def _steps(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the values above each edge."""
    return np.asarray(1 - np.searchsorted(np.sort(values), _FINE, side="right") / len(values))


def _tail_laws(values: NDArray[np.float64], fit: TailFit) -> RiskLaws:
    """A fixed set of laws around a fitted tail; the first is the fit itself."""
    rng = np.random.default_rng(20_180_301)
    edges = _FINE[::4]
    normal = rng.standard_normal((2, _LAWS))
    spread = 1 / np.sqrt(fit.excesses / (1 + fit.shape) ** 2 + 1 / SHAPE_PRIOR[1] ** 2)
    shape = fit.shape + spread * normal[0]
    correlated = -normal[0] / np.sqrt(2) + normal[1] / np.sqrt(2)
    log_scale = np.sqrt(2 * max(1 + fit.shape, 0.5) / fit.excesses) * correlated
    share = rng.beta(fit.excesses + 0.5, len(values) - fit.excesses + 0.5, _LAWS)
    shape[0], log_scale[0], share[0] = fit.shape, 0.0, fit.share
    body = values[values <= fit.threshold]
    counts = rng.standard_exponential((_LAWS, len(body)))
    counts[0] = 1.0
    above = (counts @ (body[:, None] > edges)) / counts.sum(axis=1, keepdims=True)
    excess = np.maximum(edges - fit.threshold, 0.0)
    scale = fit.scale * np.exp(log_scale)
    tail = np.exp(log_survival(excess, np.maximum(shape, -0.5)[:, None], scale[:, None]))
    survival = share[:, None] * tail + (1 - share[:, None]) * above
    return RiskLaws(edges, survival, np.full(_LAWS, 1 / _LAWS))
