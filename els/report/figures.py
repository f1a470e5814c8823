"""Results as figures, each by one function from saved results alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from els.files import replacing
from els.images import to_uint8
from els.machines.patches import SIZE
from els.probes import field_text
from els.report.results import IDEAL, Results

# Okabe & Ito's colours, which colour-blind readers can tell apart; in order of the machines.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
_STYLE = {
    "figure.dpi": 110,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
_COLUMNS = 12
_PANELS_IN_A_ROW = 3


def scales_figure(results: Results) -> Figure:
    """Fitted patch size against t, with the range over seeds, and what the data alone suggest."""
    figure, (ax,) = styled_figure(1)
    for kind, scales in results.scales.items():
        if scales.dial == SIZE.name:
            _draw_scale(ax, results, kind, label=kind)
    data = results.data_scales
    if data is not None and data.dial == SIZE.name:
        ax.step(data.t, data.sizes, where="mid", color="black", ls="--",
                label=f"{data.machine}: denoises unseen images best")  # fmt: skip
    ax.set(xlabel="t (1 = pure noise)", ylabel="patch size k (pixels)", xlim=(0, 1.02))
    ax.set_title("Fitted scale: median, and the middle 80 % of seeds", loc="left")
    ax.legend()
    return figure


def _draw_scale(ax: Axes, results: Results, kind: str, *, label: str) -> None:
    """The fitted patch size of a machine against t, with the middle 80 % of seeds."""
    scales, colour = results.scales[kind], _colour(results, kind)
    ax.step(scales.t, scales.sizes, where="mid", color=colour, label=label, lw=2)
    low, high = np.quantile(np.array(scales.by_seed), [0.1, 0.9], axis=1)
    ax.fill_between(scales.t, low, high, step="mid", color=colour, alpha=0.15, lw=0)


def looks_figure(results: Results) -> Figure:
    """The first machine's fitted size against what the network measurably looks at."""
    figure, axes = styled_figure(1)
    ax, probes, side = axes[0], results.probes, min(results.noise.shape[2:])
    scales = results.scales.get(results.subject)
    if scales is not None and scales.dial == SIZE.name:
        _draw_scale(ax, results, results.subject, label=f"fitted: {results.subject}")
    for name, style in (("50", "-"), ("90", "--")):
        if f"erf/{name}" in probes.sides():
            ax.step(probes.t, probes.sides()[f"erf/{name}"], style, where="mid", color="black",
                    label=f"measured: {name} % of x0_hat's squared gradient")  # fmt: skip
    limit = probes.receptive_field
    text = field_text(limit)
    text += " (above)" if limit is not None and limit > 1.5 * side else ""
    ax.axhline(limit or side, color="grey", ls=":", label=f"theoretical receptive field: {text}")
    ax.set(xlabel="t (1 = pure noise)", ylabel="side of the square (pixels)", xlim=(0, 1.02),
           ylim=(0, 1.5 * side))  # fmt: skip
    ax.set_title("Fitted size, and what the network looks at", loc="left")
    ax.legend(fontsize=8, loc="upper left")
    return figure


def equivariance_figure(results: Results) -> Figure:
    """The equivariance error by time and distance to the border, as a heat map."""
    figure, axes = styled_figure(1)
    ax, t = axes[0], np.array(results.probes.t)[::-1]
    errors = np.array(results.probes.equivariance)[::-1].T
    # A window of k pixels lies inside the image from k // 2 pixels on, and is then free to move.
    if results.subject == "boundary" and results.scales:
        radii = [results.scales["boundary"].at(time) // 2 - 0.5 for time in t]
        ax.step(range(len(t)), radii, where="mid", color="white", lw=1.5,
                label="boundary of the fitted size: 0 above")  # fmt: skip
        ax.legend(loc="upper left", fontsize=8, labelcolor="white", frameon=True,
                  facecolor="black", framealpha=0.4, edgecolor="none")  # fmt: skip
    image = ax.imshow(errors[1:], origin="lower", aspect="auto", cmap="cividis", vmin=0,
                      vmax=max(1, errors.max()))  # fmt: skip
    every = max(1, len(t) // 5)
    ax.set_xticks(range(0, len(t), every), [f"{v:.2f}" for v in t[::every]])
    ax.set(xlabel="t", ylabel="distance to the border (pixels)")
    ax.set_title(f"Equivariance error; over all places {errors[0].max():.2g} at most", loc="left")
    ax.grid(visible=False)
    figure.colorbar(image, ax=ax)
    return figure


def criterion_figure(results: Results) -> Figure:
    """The calibration criterion for every t and k of each fitted machine, as heat maps."""
    figure, axes = styled_figure(len(results.scales))
    for ax, (kind, scales) in zip(axes, results.scales.items(), strict=True):
        table = np.array(scales.mean_table()).T[:, ::-1]
        t = np.array(scales.t)[::-1]
        image = ax.imshow(table, origin="lower", aspect="auto", cmap="cividis")
        ax.set_xticks(
            range(0, len(t), max(1, len(t) // 5)), [f"{v:.2f}" for v in t[:: max(1, len(t) // 5)]]
        )
        ax.set_yticks(range(len(scales.candidates)), [f"{v:g}" for v in scales.candidates])
        chosen = [scales.candidates.index(k) for k in scales.sizes[::-1]]
        ax.plot(range(len(t)), chosen, "o", color="white", mec="black", ms=5)
        ax.set(xlabel="t", ylabel=scales.dial)
        ax.set_title(f"{kind}: {scales.criterion} of eps by {scales.dial}", loc="left")
        ax.grid(visible=False)
        figure.colorbar(image, ax=ax)
    return figure


def by_t_figure(results: Results) -> Figure:
    """Agreement of the x0_hats at each step, every denoiser on its own path."""
    figure, (ax,) = styled_figure(1)
    for kind, values in results.by_t.items():
        low, middle, high = np.quantile(values.numpy(), [0.25, 0.5, 0.75], axis=1)
        colour, line = machine_colour(list(results.machines), kind)
        ax.plot(results.t, middle, line, color=colour, label=kind, lw=2)
        ax.fill_between(results.t, low, high, color=colour, alpha=0.15, lw=0)
    ax.set(xlabel="t (1 = pure noise)", ylabel="pearson_r of x0_hat", xlim=(1.02, 0))
    ax.set_title("Agreement along the path: median and quartiles of seeds", loc="left")
    ax.legend(fontsize=8)
    return figure


def agreement_figure(results: Results) -> Figure:
    """Left, the metric's histogram for each machine; right, each seed against `ideal`."""
    metrics = results.by_seed()
    figure, axes = styled_figure(2)
    values = {kind: metric["pearson_r"].numpy() for kind, metric in metrics.items()}
    low = min(v.min() for v in values.values())
    bins = np.linspace(low, 1, 24)
    for kind, v in values.items():
        axes[0].hist(v, bins=bins, color=_colour(results, kind), alpha=0.5, label=kind)
    axes[0].set(xlabel="pearson_r with the network", ylabel="seeds")
    axes[0].set_title(f"{len(results.seeds)} seeds", loc="left")
    axes[0].legend()
    _scatter_against_ideal(axes[1], results, values)
    return figure


def _scatter_against_ideal(ax: Axes, results: Results, values: dict[str, np.ndarray]) -> None:
    if IDEAL not in values or len(values) == 1:
        ax.set_axis_off()
        return
    ideal = values[IDEAL]
    for kind, v in values.items():
        if kind != IDEAL:
            ax.plot(ideal, v, "o", ms=4, alpha=0.7, color=_colour(results, kind), label=kind)
    low = min(v.min() for v in values.values())
    ax.plot([low, 1], [low, 1], color="grey", lw=1, ls="--")
    ax.set(xlabel="pearson_r of ideal", ylabel="pearson_r of the machine")
    ax.set_title("Above the line: better than ideal", loc="left")
    ax.legend()


def samples_figure(results: Results) -> Figure:
    """Noise, network and machines side by side, from the best seed to the worst."""
    score = results.by_seed()[results.subject]["pearson_r"]
    order = score.argsort(descending=True)
    chosen = order[np.linspace(0, len(order) - 1, min(_COLUMNS, len(order))).round()]
    rows = {"noise": results.noise, "network": results.network[results.network_steps]}
    rows |= results.machines
    with matplotlib.rc_context(_STYLE):
        figure = Figure(
            figsize=(len(chosen) * 0.85 + 1.2, len(rows) * 0.9 + 0.5), layout="constrained"
        )
        axes = figure.subplots(len(rows), len(chosen), squeeze=False)
    for i, (name, images) in enumerate(rows.items()):
        for j, index in enumerate(chosen.tolist()):
            ax = axes[i, j]
            ax.imshow(_picture(images[index]), cmap="gray", vmin=0, vmax=255)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.spines[:].set_visible(False)
            if i == 0:
                ax.set_title(f"{float(score[index]):.2f}", fontsize=8)
        axes[i, 0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


FIGURES: dict[str, Callable[[Results], Figure]] = {
    "samples": samples_figure,
    "scales": scales_figure,
    "looks": looks_figure,
    "equivariance": equivariance_figure,
    "agreement": agreement_figure,
    "by_t": by_t_figure,
    "criterion": criterion_figure,
}
_OF_SCALES = ("scales", "criterion")
_OF_PROBES = ("looks", "equivariance")


def write_figures(results: Results, folder: Path) -> list[Path]:
    """Draw every figure as PNG; returns the paths."""
    paths = []
    for name, draw in FIGURES.items():
        if name in _OF_SCALES and not results.scales:
            continue
        if name == "scales" and all(one.dial != SIZE.name for one in results.scales.values()):
            continue
        if name in _OF_PROBES and results.probes is None:
            continue
        with matplotlib.rc_context(_STYLE):
            paths.append(save_figure(draw(results), folder / f"{name}.png"))
    return paths


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure, whole or not at all."""
    with matplotlib.rc_context(_STYLE), replacing(path) as partial:
        figure.savefig(partial)
    return path


def styled_figure(panels: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, at most three in a row."""
    columns = min(panels, _PANELS_IN_A_ROW)
    rows = -(-panels // columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.6 * columns, 3.8 * rows), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes[panels:]:
        ax.set_axis_off()
    return figure, axes[:panels]


def machine_colour(kinds: Sequence[str], kind: str) -> tuple[str, str]:
    """Colour and style of a machine's line, by its place among the machines."""
    turn, colour = divmod(list(kinds).index(kind), len(_COLOURS))
    return _COLOURS[colour], ("-", "--", ":")[turn % 3]


def _colour(results: Results, kind: str) -> str:
    return machine_colour(list(results.machines), kind)[0]


def _picture(image: Tensor) -> np.ndarray:
    """An image (c h w) in [-1, 1] as uint8 (h w) or (h w 3)."""
    pixels = to_uint8(image).numpy()
    return pixels[0] if len(pixels) == 1 else rearrange(pixels, "c h w -> h w c")
