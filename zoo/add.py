"""Put a trained and analysed run into the zoo.

    python zoo/add.py runs/garments_resnet [--name NAME] [--images TEXT]

Writes zoo/NAME and its digests in models/zoo.json. What was there of that name is replaced.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

from els.analysis.report.words import interval_text
from els.analysis.results import AGREEMENT, Results
from els.errors import InputError
from els.files import sha256_of, write_json
from els.models import zoo
from els.models.checkpoints import find_checkpoint, load_denoiser
from els.models.export import CARD, PICTURE, card, export
from els.models.formats import exported
from els.reading import read_record

HERE = Path(__file__).resolve().parent
SHEET, TRAINING = "sheet.png", "training.yaml"
MOST_BYTES, MOST_BYTES_IN_ALL = 3_000_000, 25_000_000


def main() -> None:
    """Add the run that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder, with its analysis")
    parser.add_argument("--name", help="of the network; default: that of the run")
    parser.add_argument("--images", help="where they are from, and their licence, for the card")
    options = parser.parse_args()
    try:
        folder = add(options.run, options.name or options.run.name, images=options.images)
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"{folder}: {', '.join(sorted(one.name for one in folder.iterdir()))}")


def add(
    run: Path, name: str, home: Path = HERE, index: Path = zoo.INDEX, *, images: str | None = None
) -> Path:
    """Make a folder of the zoo from a run, and enter it in the index.

    Args:
        run: the run's folder; its analysis lies in it.
        name: of the network: letters, digits and underscores.
        home: the folder of the zoo.
        index: the file with the digests.
        images: what the card says of them; default: what the data set's name says.

    Returns:
        the network's folder.

    Raises:
        InputError: when the analysis is not of this network, names places of this machine, or the
            folder or the zoo would be too large.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise InputError(f"'{name}' is no name; use lower-case letters, digits and underscores")
    checkpoint, analysis = find_checkpoint(run), run / "analysis"
    results = Results.load(analysis)
    if results.provenance.checkpoint.sha256 != sha256_of(checkpoint):
        raise InputError(f"'{analysis}' is of another checkpoint than '{checkpoint}'")
    with tempfile.TemporaryDirectory() as scratch:
        made = export(checkpoint, Path(scratch) / name)
        folder = Path(scratch) / "kept"
        folder.mkdir()
        for file in (exported.WEIGHTS, exported.CONFIG, PICTURE):
            shutil.copy(made / file, folder / file)
        for path in (analysis / AGREEMENT, *analysis.glob("scales*.json")):
            shutil.copy(path, folder / path.name)
        shutil.copy(analysis / "samples.png", folder / SHEET)
        shutil.copy(run / "config.yaml", folder / TRAINING)
        (folder / CARD).write_text(_card(results, checkpoint, name, images), encoding="utf-8")
        _check(folder)
        target = home / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
    known = read_record(zoo.Index, index) if index.exists() else {}
    known[name] = {one.name: sha256_of(one) for one in sorted(target.iterdir())}
    write_json(index, dict(sorted(known.items())))
    if (total := _size(home)) > MOST_BYTES_IN_ALL:
        raise InputError(f"the zoo takes {total:,} bytes, of at most {MOST_BYTES_IN_ALL:,}")
    return target


def rows(results: Results) -> list[str]:
    """Of the table on the card: each machine, its pearson_r and its R2 with their intervals."""
    found = []
    for kind, one in results.agreement[0].machines.items():
        r, share = (interval_text(one.metrics[metric]) for metric in ("pearson_r", "R2"))
        found.append(f"| `{kind}` | {r} | {share} |")
    return found


def _card(results: Results, checkpoint: Path, name: str, images: str | None) -> str:
    provenance = results.provenance
    seeds = f"{len(results.seeds)} seeds"
    steps = f"network {results.network_steps} steps, machines {provenance.protocol.steps}"
    use = f"""```python
import els

network = els.load_denoiser("zoo:{name}")
samples = network.sample(4)
```

`python analyze.py zoo:{name}` compares it with its theory. It was trained by
`python train.py fit --config zoo/{name}/{TRAINING}`. Agreement is over {seeds} that
no scale was fitted on, {steps}; {provenance.images:,} images are in the
machines. The fitted scales lie beside this file, and all numbers in {AGREEMENT}:

![Noise, network and machines]({SHEET})"""
    return card(load_denoiser(checkpoint), name, rows(results), use, images)


def _check(folder: Path) -> None:
    for path in folder.glob("*"):
        text = path.read_bytes()
        if path.suffix in (".json", ".yaml", ".md") and (found := re.search(rb"[ '\"]/\w+/", text)):
            raise InputError(
                f"'{path.name}' names a place on this machine ({found[0].decode()}...); train and "
                "analyse with relative paths"
            )
    if (size := _size(folder)) > MOST_BYTES:
        raise InputError(f"the network takes {size:,} bytes, of at most {MOST_BYTES:,}")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
