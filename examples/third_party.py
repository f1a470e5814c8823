"""A network that somebody else trained: a UNet on 28 x 28 digits with norms over whole images.

python analyze.py python:examples/third_party.py:load --clip --data_name mnist --data_root DATA
"""

import os
from collections import OrderedDict

import torch
from torch import Tensor, nn

from els.adapters import Adapted, from_eps

# The side of each stage's images, and the channels before and after each of its three blocks.
DOWN = {"1": (28, 1, 10, 10, 10), "2": (14, 10, 20, 20, 20), "3": (7, 20, 40, 40, 40)}
UP = {"4": (7, 80, 40, 20, 20), "5": (14, 40, 20, 10, 10), "_out": (28, 20, 10, 10, 10)}
down, up = nn.Conv2d, nn.ConvTranspose2d


def _block(side: int, inputs: int, outputs: int) -> nn.Sequential:
    first, second = down(inputs, outputs, 3, 1, 1), down(outputs, outputs, 3, 1, 1)
    parts = {"ln": nn.LayerNorm((inputs, side, side)), "conv1": first, "act1": nn.SiLU()}
    return nn.Sequential(OrderedDict({**parts, "conv2": second, "act2": nn.SiLU()}))


class Net(nn.Module):
    """The network, called as net(x, step) -> eps; its names are those of its file."""

    def __init__(self) -> None:
        super().__init__()
        self.time_embed, self.conv_out = nn.Embedding(1000, 100), down(10, 1, 3, 1, 1)
        for at, (side, n, *c) in (DOWN | {"_mid": (3, 40, 20, 20, 40)} | UP).items():
            self.add_module(f"te{at}", nn.Sequential(nn.Linear(100, n), nn.SiLU(), nn.Linear(n, n)))
            blocks = (_block(side, *pair) for pair in zip((n, *c), c, strict=False))
            self.add_module(f"b{at}", nn.Sequential(*blocks))
        self.down1, self.down2 = down(10, 10, 4, 2, 1), down(20, 20, 4, 2, 1)
        self.down3 = nn.Sequential(down(40, 40, 2), nn.SiLU(), down(40, 40, 4, 2, 1))
        self.up1 = nn.Sequential(up(40, 40, 4, 2, 1), nn.SiLU(), up(40, 40, 2))
        self.up2, self.up3 = up(20, 20, 4, 2, 1), up(10, 10, 4, 2, 1)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """The noise in images x (b 1 28 28) at steps (b,)."""
        h2 = self._stage("2", step, self.down1(h1 := self._stage("1", step, x)))
        h3 = self._stage("3", step, self.down2(h2))
        h4 = self._stage("4", step, h3, self.up1(self._stage("_mid", step, self.down3(h3))))
        h5 = self._stage("5", step, h2, self.up2(h4))
        return self.conv_out(self._stage("_out", step, h1, self.up3(h5)))

    def _stage(self, name: str, step: Tensor, *h: Tensor) -> Tensor:
        told = self.get_submodule(f"te{name}")(self.time_embed(step))[:, :, None, None]
        return self.get_submodule(f"b{name}")(torch.cat(h, dim=1) + told)


def load() -> Adapted:
    """The network; its weights (niuwengang/mnist_ddpm, GPL-3.0) are read from the file $UNET28."""
    net, table = Net(), torch.load(os.environ["UNET28"], weights_only=True)
    net.load_state_dict({name.removeprefix("network."): one for name, one in table.items()})
    net.get_submodule("b_out.2").ln = nn.Identity()  # is in its file, and not called
    levels = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)  # of linear noise
    return from_eps(net.eval(), alpha_bar=levels, image_shape=(1, 28, 28))
