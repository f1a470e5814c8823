import pytest
import torch

from els.errors import InputError
from models.blocks import Network
from models.networks import NETWORKS, build_network

SMALL = {"ResNet": {"width": 16, "depth": 3}, "UNet": {"widths": [16, 32], "embedding": 16}}


def small(name: str, **options: object) -> Network:
    torch.manual_seed(0)
    config = {"channels": 1, "num_classes": None, **SMALL[name], **options}
    return build_network(name, config).eval()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("norm", ["none", "group"])
@pytest.mark.parametrize("num_classes", [None, 4])
def test_shapes_singletons_and_rebuilding(
    name: str, padding: str, norm: str, num_classes: int | None
) -> None:
    net = small(name, channels=3, padding=padding, norm=norm, num_classes=num_classes)
    x, t = torch.randn(3, 3, 8, 12), torch.tensor([0.1, 0.5, 1.0])
    label = None if num_classes is None else torch.tensor([0, 3, 1])
    eps = net(x, t, label)
    assert eps.shape == x.shape
    singles = [
        net(x[i : i + 1], t[i : i + 1], None if label is None else label[i : i + 1])
        for i in range(3)
    ]
    torch.testing.assert_close(torch.cat(singles), eps, atol=1e-5, rtol=1e-4)
    again = build_network(name, net.config)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval()(x, t, label), eps)
    assert not torch.allclose(net(x, t.flip(0), label), eps)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_receptive_field_is_where_gradients_reach(name: str) -> None:
    net, side = small(name, padding="zeros"), 48
    reached = torch.zeros(side, side, dtype=torch.bool)
    for place in (24, 25, 26, 27):  # every place in a pooling cell
        x = torch.randn(1, 1, side, side, requires_grad=True)
        net(x, torch.tensor([0.5]))[0, 0, place, place].backward()
        reached |= x.grad[0, 0] != 0
        rows = x.grad[0, 0].abs().sum(dim=1).nonzero()
        assert int(rows.max() - rows.min()) + 1 <= net.receptive_field
    assert int(reached.any(dim=1).sum()) >= net.receptive_field


def test_the_papers_resnet_sees_17_pixels() -> None:
    assert build_network("ResNet", {"channels": 1}).receptive_field == 17


def test_circular_padding_makes_a_resnet_equivariant_and_zeros_do_not() -> None:
    x, t = torch.randn(1, 1, 12, 12), torch.tensor([0.5])
    error = {}
    for padding in ("zeros", "circular"):
        net = small("ResNet", padding=padding)
        shifted = net(x.roll((3, -2), dims=(2, 3)), t)
        error[padding] = float((shifted - net(x, t).roll((3, -2), dims=(2, 3))).abs().max())
    assert error["circular"] < 1e-5 < error["zeros"]


def test_bad_networks_and_labels_are_refused() -> None:
    with pytest.raises(InputError, match="unknown network 'VGG'; known are ResNet, UNet"):
        build_network("VGG", {})
    with pytest.raises(InputError, match="cannot be built"):
        build_network("ResNet", {"channels": 1, "wings": 2})
    for options in (
        {"padding": "mirror"},
        {"norm": "batch"},
        {"kernel": 4},
        {"width": 12},
        {"width": 8},
    ):
        with pytest.raises(InputError):
            small("ResNet", **options)
    with pytest.raises(InputError, match="multiples of 2, not 7 x 8"):
        small("UNet")(torch.zeros(1, 1, 7, 8), torch.ones(1))
    x, t = torch.zeros(1, 1, 8, 8), torch.ones(1)
    with pytest.raises(InputError, match="not class-conditional"):
        small("ResNet")(x, t, torch.tensor([0]))
    with pytest.raises(InputError, match=r"give labels 0\.\.3"):
        small("ResNet", num_classes=4)(x, t)
