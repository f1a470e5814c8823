import pytest
import torch

from els.errors import InputError
from els.models.blocks import Network, SelfAttention
from els.models.networks import NETWORKS, build_network

SMALL = {"ResNet": {"width": 16, "depth": 3}, "UNet": {"widths": [16, 32], "embedding": 16}}


# Networks in two makes or more, by the name that the tests give them.
MAKES = {**{name: {} for name in NETWORKS}, "UNet with attention": {"attention": [0, 1]}}


def small(name: str, **options: object) -> Network:
    torch.manual_seed(0)
    kind, make = name.split()[0], MAKES[name]
    config = {"channels": 1, "num_classes": None, **SMALL[kind], **make, **options}
    return build_network(kind, config).eval()


def excited(net: Network) -> Network:
    """The same network with attention that says something, as after training."""
    for name, value in net.named_parameters():
        if name.endswith("attention.output.weight"):
            torch.nn.init.normal_(value, std=0.3)
    return net


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("norm", ["none", "group"])
@pytest.mark.parametrize("num_classes", [None, 4])
def test_shapes_singletons_and_rebuilding(
    name: str, padding: str, norm: str, num_classes: int | None
) -> None:
    net = excited(small(name, channels=3, padding=padding, norm=norm, num_classes=num_classes))
    x, t = torch.randn(3, 3, 8, 12), torch.tensor([0.1, 0.5, 1.0])
    label = None if num_classes is None else torch.tensor([0, 3, 1])
    eps = net(x, t, label)
    assert eps.shape == x.shape
    singles = [
        net(x[i : i + 1], t[i : i + 1], None if label is None else label[i : i + 1])
        for i in range(3)
    ]
    torch.testing.assert_close(torch.cat(singles), eps, atol=1e-5, rtol=1e-4)
    again = build_network(type(net).__name__, net.config)
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


@pytest.mark.parametrize("name", ["ResNet", "UNet"])
def test_a_network_that_sees_the_whole_image_says_so(name: str) -> None:
    options = {"norm": "group"} if name == "ResNet" else {"attention": [1]}
    net = excited(small(name, **options))
    x = torch.randn(1, 1, 48, 48, requires_grad=True)
    net(x, torch.tensor([0.5]))[0, 0, 24, 24].backward()
    assert (x.grad[0, 0] != 0).all()
    assert net.receptive_field is None
    assert "receptive field the whole image" in net.facts.description


def test_attention_starts_as_nothing_and_keeps_the_names_of_the_rest() -> None:
    plain, attentive = small("UNet"), small("UNet", attention=[1], heads=2)
    added = set(attentive.state_dict()) - set(plain.state_dict())
    assert all(name.startswith("middle.attention.") for name in added)
    assert added
    attentive.load_state_dict(plain.state_dict(), strict=False)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.3, 0.9])
    assert torch.equal(attentive(x, t), plain(x, t))
    old = {
        name: value for name, value in plain.config.items() if name not in ("attention", "heads")
    }
    build_network("UNet", old).load_state_dict(plain.state_dict())  # a checkpoint from before


def test_attention_is_the_formula_of_each_head() -> None:
    torch.manual_seed(0)
    layer, h = SelfAttention(16, heads=2), torch.randn(1, 16, 2, 3)
    torch.nn.init.normal_(layer.output.weight)
    places = layer.inputs(layer.norm(h))[0].flatten(1).T  # (6, 48)
    heads = []
    for head in range(2):
        query, key, value = (places[:, 16 * i + 8 * head :][:, :8] for i in range(3))
        heads.append((query @ key.T / 8**0.5).softmax(dim=1) @ value)
    seen = torch.cat(heads, dim=1).T.reshape(1, 16, 2, 3)
    torch.testing.assert_close(layer(h), h + layer.output(seen))


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
    with pytest.raises(InputError, match=r"no level 2 for attention; this UNet has levels 0\.\.1"):
        small("UNet", attention=[1, 2])
    with pytest.raises(InputError, match="16 channels cannot be divided among 3"):
        small("UNet", attention=[0], heads=3)
    with pytest.raises(InputError, match="multiples of 2, not 7 x 8"):
        small("UNet")(torch.zeros(1, 1, 7, 8), torch.ones(1))
    x, t = torch.zeros(1, 1, 8, 8), torch.ones(1)
    with pytest.raises(InputError, match="not class-conditional"):
        small("ResNet")(x, t, torch.tensor([0]))
    with pytest.raises(InputError, match=r"give labels 0\.\.3"):
        small("ResNet", num_classes=4)(x, t)
