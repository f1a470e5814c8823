"""Where does a small network begin to copy, and do the machines say so beforehand?

Trains a UNet on each number of images and counts the samples with d1 / d2 < 1/3. Beforehand: the
machines' scales are those that denoise held-out images best; k_mem is where posteriors collapse.

    python -m examples.copying --data mnist --data_root path/to/data
"""

import argparse

import torch
from torch import nn

import els
from els.calibration import fit_scales_to_data
from els.denoiser import add_noise
from els.images import to_float
from els.information import measure_information
from els.models.denoiser import NetworkDenoiser
from els.models.networks import build_network
from els.novelty import copied_share, nearest_images
from els.schedule import COSINE

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", default="digits")
parser.add_argument("--data_root", default="data")
parser.add_argument("--limit", type=int, nargs="+", default=[10, 30, 100, 300, 1000, 3000])
parser.add_argument("--seeds", type=int, default=32)
parser.add_argument("--steps", type=int, default=2000, help="of training, 64 images each")
options = parser.parse_args()
load, sizes = {"root": options.data_root, "size": 16}, range(3, 17, 2)
for limit in options.limit:
    images = els.load_images(options.data, limit=limit, **load)
    unseen = els.load_images(options.data, split="val", **load).take(torch.arange(8))
    torch.manual_seed(0)
    net = build_network("UNet", {"channels": images.image_shape[0], "widths": [32, 64, 128]})
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(options.steps):
        x0, t = to_float(images.pixels[torch.randint(len(images), (64,))]), 1 - torch.rand(64)
        eps = torch.randn_like(x0)
        optimiser.zero_grad()
        nn.functional.mse_loss(net(add_noise(x0, eps, t, COSINE), t, None), eps).backward()
        optimiser.step()
    shape = images.image_shape
    sides = {"network": NetworkDenoiser(net.eval(), schedule=COSINE, image_shape=shape, data=None)}
    told = f"{len(images):5} images"
    for kind in ("boundary", "local"):
        machine = els.make_machine(kind, images)
        scales = fit_scales_to_data(machine, unseen, candidates=sizes)
        sides[kind] = machine.fitted(scales)
        found = measure_information(sides[kind], machine, els.Starts(shape), [0], candidates=sizes)
        above = sum(not k or scales.at(t) > k for t, k in zip(found.t, found.k_mem, strict=True))
        told += f"  {kind} above k_mem at {above} of {len(found.t)} t"
    for kind, side in (sides | {"ideal": els.make_machine("ideal", images)}).items():
        ratio = nearest_images(els.sample(side, range(options.seeds)), images).ratio_in_place
        print(f"{len(images):5} images  {kind:8}  copied {copied_share(ratio)}", flush=True)
    print(told, flush=True)
