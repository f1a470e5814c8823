"""Results as figures, each by one function from saved results alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from einops import rearrange
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from els.analysis.report.style import (
    FORMATS,
    ONE_COLUMN,
    STYLE,
    TWO_COLUMNS,
    machine_colour,
    machine_marker,
    save_figure,
    shown_panels,
    styled_figure,
)
from els.analysis.results import IDEAL, Results
from els.calibration import Scales
from els.images import to_uint8
from els.machines.local import SIZE
from els.probes import field_text

_COLUMNS = 12
_FEW = 4  # so many machines are told apart in one panel; more of them get a panel each
_IN_PIXELS = (SIZE.name, "width")
_TIME = "t (1 = pure noise)"
_CASING = [patheffects.Stroke(linewidth=3, foreground="black"), patheffects.Normal()]


def scales_figure(results: Results) -> Figure:
    """Fitted patch size against t, with the range over seeds, and what the data alone suggest."""
    figure, (ax,) = styled_figure(height=2.7)
    for kind, scales in results.scales.items():
        if scales.scale == SIZE.name:
            _draw_scale(ax, results, kind, label=kind)
    data = results.data_scales
    if data is not None and data.scale == SIZE.name:
        ax.step(data.t, data.values, where="mid", color="black", ls=(0, (2, 1)), lw=1, marker="x",
                ms=3.5, label=f"{data.machine}: denoises unseen images best")  # fmt: skip
    ax.set(xlabel=_TIME, ylabel="patch size k (pixels)", xlim=(0, 1.02))
    ax.set_title("Fitted size: median and middle 80 % of seeds")
    _legend_below(figure, ax)
    return figure


def _draw_scale(ax: Axes, results: Results, kind: str, *, label: str) -> None:
    """The fitted patch size of a machine against t, with the middle 80 % of seeds."""
    scales, (colour, dashes) = results.scales[kind], _line(results, kind)
    ax.step(scales.t, scales.values, where="mid", color=colour, ls=dashes, label=label,
            marker=machine_marker(list(results.machines), kind), ms=3)  # fmt: skip
    low, high = np.quantile(np.array(scales.by_seed), [0.1, 0.9], axis=1)
    ax.fill_between(scales.t, low, high, step="mid", color=colour, alpha=0.15, lw=0)


def looks_figure(results: Results) -> Figure:
    """The first machine's fitted size against what the network measurably looks at."""
    figure, (ax,) = styled_figure(height=2.8)
    probes, side = results.probes, min(results.noise.shape[2:])
    scales = results.scales.get(results.primary)
    if scales is not None and scales.scale == SIZE.name:
        _draw_scale(ax, results, results.primary, label=f"fitted: {results.primary}")
    for name, style in (("50", "-"), ("90", "--")):
        if f"erf/{name}" in probes.sides():
            ax.step(probes.t, probes.sides()[f"erf/{name}"], style, where="mid", color="black",
                    label=f"measured: {name} % of x0_hat's squared gradient")  # fmt: skip
    limit = probes.receptive_field
    text = field_text(limit) + (" (above)" if limit is not None and limit > 1.5 * side else "")
    ax.axhline(limit or side, color="grey", ls=":", label=f"theoretical receptive field: {text}")
    ax.set(xlabel=_TIME, ylabel="side of the square (pixels)", xlim=(0, 1.02),
           ylim=(0, 1.5 * side))  # fmt: skip
    ax.set_title("Fitted size, and what the network looks at")
    _legend_below(figure, ax)
    return figure


def equivariance_figure(results: Results) -> Figure:
    """The equivariance error by time and distance to the border, as a heat map."""
    figure, (ax,) = styled_figure()
    t = np.array(results.probes.t)[::-1]
    errors = np.array(results.probes.equivariance)[::-1].T
    image = ax.imshow(errors[1:], origin="lower", aspect="auto", vmin=0, vmax=max(1, errors.max()))
    # A window of k pixels lies inside the image from k // 2 pixels on, and is then free to move.
    if results.primary == "boundary" and results.scales:
        radii = [results.scales["boundary"].at(time) // 2 - 0.5 for time in t]
        ax.step(range(len(t)), radii, where="mid", color="white", path_effects=_CASING,
                label="boundary of the fitted size: 0 above")  # fmt: skip
        _legend_below(figure, ax)
    _time_ticks(ax, t)
    ax.set(xlabel=_TIME, ylabel="distance to the border (pixels)")
    ax.set_title(f"Equivariance error; over all places {errors[0].max():.2g} at most")
    figure.colorbar(image, ax=ax, label="relative difference")
    return figure


def criterion_figure(results: Results) -> Figure:
    """The calibration criterion for every t and k of each fitted machine, as heat maps.

    Of a cosine, what it lacks of 1 is shown: at high noise all cosines are near 1.
    """
    columns = min(3, len(results.scales))
    rows = -(-len(results.scales) // columns)
    figure, axes = styled_figure(
        rows, columns, panels=len(results.scales), height=1.7 * rows + 0.4,
        width=ONE_COLUMN if columns == 1 else TWO_COLUMNS,
    )  # fmt: skip
    tables = [_shortfall(scales) for scales in results.scales.values()]
    norm = _log_norm(np.concatenate([table.ravel() for table in tables]))
    for ax, table, (kind, scales) in zip(axes, tables, results.scales.items(), strict=True):
        ax.imshow(np.maximum(table, norm.vmin), origin="lower", aspect="auto", norm=norm,
                  cmap="cividis_r")  # fmt: skip
        ax.set_yticks(
            range(len(scales.candidates)), [f"{v:g}" for v in scales.candidates], fontsize=6
        )
        chosen = [scales.candidates.index(k) for k in scales.values[::-1]]
        ax.plot(range(len(chosen)), chosen, "o", color="white", mec="black", mew=0.7, ms=3.5)
        _time_ticks(ax, scales.t[::-1])
        ax.set(xlabel="t", title=kind, ylabel=f"{scales.scale} (pixels)"
               if scales.scale in _IN_PIXELS else scales.scale)  # fmt: skip
    criterion = next(iter(results.scales.values())).criterion
    name = {"cosine": "1 - cosine of the eps_hats", "l2": "L2 of the eps_hats"}[criterion]
    figure.colorbar(ScalarMappable(norm, "cividis_r"), ax=axes, label=name, aspect=20 * rows)
    return figure


def _shortfall(scales: Scales) -> np.ndarray:
    """How far from agreement each candidate is at each t (candidates steps), from t = 0 upwards."""
    table = np.array(scales.mean_table()).T[:, ::-1]
    return 1 - table if scales.criterion == "cosine" else table


def _log_norm(values: np.ndarray) -> Normalize:
    positive = values[values > 0]
    if not len(positive):
        return LogNorm(1e-6, 1)
    return LogNorm(positive.min(), max(positive.max(), 1.01 * positive.min()))


def by_t_figure(results: Results) -> Figure:
    """Agreement of the x0_hats at each step, every denoiser on its own path."""
    kinds = list(results.by_t)
    title = "Agreement along the path: median and quartiles"
    if len(kinds) <= _FEW:
        figure, (ax,) = styled_figure(height=2.7)
        for kind in kinds:
            _draw_along(ax, results, kind)
        ax.set(xlabel=_TIME, ylabel="pearson_r of x0_hat", xlim=(1.02, 0), title=title)
        _legend_below(figure, ax)
        return figure
    columns = 5
    rows = -(-len(kinds) // columns)
    figure, axes = styled_figure(
        rows, columns, panels=len(kinds), width=TWO_COLUMNS, height=1.3 * rows + 0.6, share=True
    )
    for ax, kind in zip(axes, kinds, strict=True):
        for other in kinds:
            ax.plot(results.t, np.median(results.by_t[other].numpy(), axis=1), color="0.85", lw=0.5)
        _draw_along(ax, results, kind)
        ax.set(xlim=(1.02, 0), title=kind)
    figure.suptitle(f"{title}; the other machines in grey", x=0.01, ha="left")
    figure.supxlabel(_TIME, fontsize=8)
    figure.supylabel("pearson_r of x0_hat", fontsize=8)
    return figure


def _draw_along(ax: Axes, results: Results, kind: str) -> None:
    """Median and quartiles over seeds of a machine's agreement at each step."""
    low, middle, high = np.quantile(results.by_t[kind].numpy(), [0.25, 0.5, 0.75], axis=1)
    colour, dashes = _line(results, kind)
    ax.plot(results.t, middle, ls=dashes, color=colour, label=kind)
    ax.fill_between(results.t, low, high, color=colour, alpha=0.25, lw=0)


def agreement_figure(results: Results) -> Figure:
    """Left, how the metric is spread for each machine; right, each seed against `ideal`."""
    values = {kind: metric["pearson_r"].numpy() for kind, metric in results.by_seed().items()}
    against = [kind for kind in values if kind != IDEAL] if IDEAL in values else []
    width = TWO_COLUMNS if against else ONE_COLUMN
    height = max(2.2, 0.2 * len(values) + 0.8, 0.95 * _grid(len(against) or 1)[0] + 0.7)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        if not against:
            _spread(figure, results, values)
            return figure
        left, right = figure.subfigures(1, 2, width_ratios=(1, 1.2))
        _spread(left, results, values)
        _against_ideal(right, results, values, against)
    return figure


def _grid(panels: int) -> tuple[int, int]:
    """Rows and columns of the panels against `ideal`."""
    columns = min(3, panels)
    return -(-panels // columns), columns


def _spread(figure: Figure | SubFigure, results: Results, values: dict[str, np.ndarray]) -> None:
    """A row for each machine: every seed, their quartiles and their median."""
    ax = figure.subplots()
    for row, (kind, v) in enumerate(values.items()):
        _dots(ax, row, v, _line(results, kind)[0])
    ax.set_yticks(range(len(values)), list(values))
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    ax.set(xlabel="pearson_r with the network", title="Seeds, quartiles and median")


def _dots(ax: Axes, row: int, values: np.ndarray, colour: str) -> None:
    """A row of dots, one a seed, with their quartiles and their median."""
    jitter = np.random.default_rng(0).uniform(-0.28, 0.28, len(values))
    ax.plot(values, row + jitter, "o", ms=2.2, color=colour, alpha=0.6, mew=0)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    ax.plot([low, high], [row, row], color="black", lw=1)
    ax.plot(middle, row, "|", color="black", ms=9, mew=1.6)


def _against_ideal(
    figure: SubFigure, results: Results, values: dict[str, np.ndarray], kinds: Sequence[str]
) -> None:
    """A panel for each machine: its metric against that of `ideal`, seed by seed."""
    rows, columns = _grid(len(kinds))
    axes = shown_panels(figure.subplots(rows, columns, squeeze=False, sharex=True), len(kinds))
    ideal = values[IDEAL]
    for ax, kind in zip(axes, kinds, strict=True):
        colour, _ = _line(results, kind)
        ax.axline((1, 1), slope=1, color="grey", lw=0.8, ls="--")
        ax.plot(ideal, values[kind], machine_marker(list(results.machines), kind), ms=2.5,
                color=colour, alpha=0.8, mew=0)  # fmt: skip
        low = min(ideal.min(), values[kind].min())  # of each machine: one that fails is far below
        ax.set_xlim(ideal.min() - 0.05 * (1 - ideal.min()), 1 + 0.05 * (1 - ideal.min()))
        ax.set_ylim(low - 0.08 * (1 - low), 1 + 0.08 * (1 - low))
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.yaxis.set_major_locator(MaxNLocator(3))
        ax.set_title(
            kind, fontsize=7, loc="right"
        )  # a long name may reach above the ticks' numbers
        ax.tick_params(labelsize=6)
    figure.suptitle("Above the line: better than ideal", x=0.02, ha="left")
    figure.supxlabel("pearson_r of ideal", fontsize=8)
    figure.supylabel("pearson_r of the machine", fontsize=8)


def samples_figure(results: Results) -> Figure:
    """Noise, network and machines side by side, from the best seed to the worst."""
    score = results.by_seed()[results.primary]["pearson_r"]
    order = score.argsort(descending=True)
    chosen = order[np.linspace(0, len(order) - 1, min(_COLUMNS, len(order))).round()]
    rows = {"noise": results.noise, "network": results.network[results.network_steps]}
    rows |= results.machines
    gutter, cell = 1.15, (TWO_COLUMNS - 1.15) / _COLUMNS
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(gutter + len(chosen) * cell, (len(rows) + 0.35) * cell), layout="constrained"
        )
        figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
        axes = figure.subplots(len(rows), len(chosen), squeeze=False)
    for i, (name, images) in enumerate(rows.items()):
        for j, index in enumerate(chosen.tolist()):
            ax = axes[i, j]
            ax.imshow(_picture(images[index]), cmap="gray", vmin=0, vmax=255)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.spines[:].set_visible(False)
            if i == 0:
                ax.set_title(f"{float(score[index]):.2f}", fontsize=7, loc="center", pad=2)
        axes[i, 0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def mosaic_figure(results: Results) -> Figure:
    """The best, the median and the worst seed: images, their mosaics, and what decided.

    Lines part neighbours whose winning patches are of different training images.
    """
    attribution, seeds = results.attribution, results.order()[:3]
    columns = 2 * len(attribution.mosaics) + 1
    figure, axes = styled_figure(
        len(seeds), columns, width=TWO_COLUMNS, height=(len(seeds) + 0.3) * TWO_COLUMNS / columns
    )
    for row, seed in enumerate(seeds):
        line = axes[row * columns : (row + 1) * columns]
        for i, (side, mosaic) in enumerate(attribution.mosaics.items()):
            sample = _grey_or_colour(attribution.paths[side][-1, seed])
            _show(line[2 * i], sample, side if not row else "")
            image = line[2 * i + 1]
            _show(image, _grey_or_colour(mosaic.pixels[-1][seed]), "its mosaic" if not row else "")
            _draw_borders(image, *(part[seed].numpy() for part in mosaic.borders()))
        mosaic = attribution.mosaics[attribution.machine]
        share = line[-1].imshow(mosaic.top_share[-1][seed].float().numpy(), vmin=0, vmax=1)
        _show(line[-1], None, "top image's share" if not row else "")
        line[0].set_ylabel(f"seed {results.seeds[seed]}")
    figure.colorbar(share, ax=axes[columns - 1 :: columns], shrink=0.6)
    return figure


def _show(ax: Axes, picture: np.ndarray | None, title: str) -> None:
    if picture is not None:
        ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[], title=title)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _draw_borders(ax: Axes, below: np.ndarray, right: np.ndarray) -> None:
    """Lines between pixels, where (h - 1 w) and (h w - 1) say so."""
    rows, columns = below.nonzero()
    style = {"colors": "#D55E00", "linewidths": 0.4}
    ax.hlines(rows + 0.5, columns - 0.5, columns + 0.5, **style)
    rows, columns = right.nonzero()
    ax.vlines(columns + 0.5, rows - 0.5, rows + 0.5, **style)


def novelty_figure(results: Results) -> Figure:
    """How far from copies the samples are: a row for each side, a dot for each image."""
    by_seed = results.attribution.by_seed()
    titles = {
        "distance": "distance to the nearest\ntraining image (RMS)",
        "memorised": "share of\nmemorised pixels",
        "images": "training images\ndrawn on",
        "largest_piece": "largest piece\n(share of pixels)",
    }
    shown = [name for name in titles if any(name in values for values in by_seed.values())]
    figure, axes = styled_figure(1, len(shown), width=TWO_COLUMNS, height=2.1)
    for ax, name in zip(axes, shown, strict=True):
        for row, (side, values) in enumerate(by_seed.items()):
            if name in values:
                colour, _ = machine_colour(list(by_seed), side)
                _dots(ax, row, values[name].numpy(), colour)
        ax.set_yticks(range(len(by_seed)), list(by_seed) if ax is axes[0] else [""] * len(by_seed))
        ax.set_ylim(len(by_seed) - 0.5, -0.5)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel(titles[name])
    figure.suptitle("Novelty: seeds, quartiles and median", x=0.01, ha="left")
    return figure


def consistency_figure(results: Results) -> Figure:
    """How many patches count, and how well neighbouring winners agree, at each step."""
    attribution, mosaic = results.attribution, results.attribution.traced
    curves = {"patches that count": mosaic.of_a_pixel("effective_size")}
    if not mosaic.consistency.isnan().all():
        curves["local consistency"] = mosaic.consistency
    figure, axes = styled_figure(1, len(curves), width=TWO_COLUMNS, height=2.2)
    colour, dashes = _line(results, attribution.machine)
    for ax, (name, values) in zip(axes, curves.items(), strict=True):
        low, middle, high = np.nanquantile(values.double().numpy(), [0.25, 0.5, 0.75], axis=1)
        ax.plot(mosaic.t, middle, ls=dashes, color=colour)
        ax.fill_between(mosaic.t, low, high, color=colour, alpha=0.25, lw=0)
        ax.set(xlabel=_TIME, ylabel=name, xlim=(1.02, 0))
    axes[0].set_yscale("log")
    figure.suptitle(f"{attribution.machine}: median and quartiles of seeds", x=0.01, ha="left")
    return figure


FIGURES: dict[str, Callable[[Results], Figure]] = {
    "samples": samples_figure,
    "scales": scales_figure,
    "looks": looks_figure,
    "equivariance": equivariance_figure,
    "agreement": agreement_figure,
    "by_t": by_t_figure,
    "criterion": criterion_figure,
    "mosaic": mosaic_figure,
    "novelty": novelty_figure,
    "consistency": consistency_figure,
}


def write_figures(
    results: Results, folder: Path, *, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Draw every figure in each of the formats; returns the paths."""
    paths, names = [], drawable(results)
    for name in FIGURES.keys() - names:  # of an earlier analysis with more to show
        for left in FORMATS:
            (folder / f"{name}.{left}").unlink(missing_ok=True)
    for name in names:
        draw = FIGURES[name]
        with matplotlib.rc_context(STYLE):
            paths += save_figure(draw(results), folder, name, formats)
    return paths


def drawable(results: Results) -> list[str]:
    """The names of the figures that these results have something to show in."""
    attribution, sized = (
        results.attribution,
        any(s.scale == SIZE.name for s in results.scales.values()),
    )
    missing = {
        "scales": not sized,
        "criterion": not results.scales,
        "looks": results.probes is None,
        "equivariance": results.probes is None,
        "mosaic": attribution is None or attribution.machine is None,
        "novelty": attribution is None,
        "consistency": attribution is None or attribution.traced is None,
    }
    return [name for name in FIGURES if not missing.get(name)]


def _legend_below(figure: Figure, ax: Axes) -> None:
    """What is drawn, where it covers nothing."""
    _, names = ax.get_legend_handles_labels()
    if names:
        figure.legend(loc="outside lower center", ncols=1 if max(map(len, names)) > 20 else 3)


def _time_ticks(ax: Axes, t: Sequence[float]) -> None:
    """Name some of the steps along a heat map."""
    every = max(1, len(t) // 5)
    ax.set_xticks(range(0, len(t), every), [f"{v:.2f}" for v in t[::every]])
    ax.grid(visible=False)


def _line(results: Results, kind: str) -> tuple[str, object]:
    return machine_colour(list(results.machines), kind)


def _picture(image: Tensor) -> np.ndarray:
    """An image (c h w) in [-1, 1] as uint8 (h w) or (h w 3)."""
    return _grey_or_colour(to_uint8(image))


def _grey_or_colour(pixels: Tensor) -> np.ndarray:
    """A uint8 image (c h w) as (h w) or (h w 3)."""
    pixels = pixels.numpy()
    return pixels[0] if len(pixels) == 1 else rearrange(pixels, "c h w -> h w c")
