from itertools import chain
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from smcore.config import ROOT
from smcore.ynet import YNet, YNetConfig, count_parameters, initialise_he

SMALL = {"in_channels": 3, "features": 8, "scale_factor": 4}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small networks are slower on two threads when something else runs beside them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_network(seed=0, **config):
    torch.manual_seed(seed)
    return YNet(YNetConfig(**SMALL | config)).eval()


def make_inputs(batch=2, *, sources=3, auxiliary=2, scale_factor=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    predictors = torch.randn(batch, sources, 5, 7, generator=generator)
    shape = (batch, auxiliary, 5 * scale_factor, 7 * scale_factor)
    return predictors, torch.randn(shape, generator=generator)


@pytest.mark.parametrize(
    ("auxiliary_channels", "parameters"), [(2, 1_658_174), (1, 1_657_598), (0, 1_657_022)]
)
def test_default_network_has_the_published_number_of_parameters(auxiliary_channels, parameters):
    # A 3 x 3 convolution from n to m channels has (9 n + 1) m parameters, with its bias.
    # encoder     (9*25 + 1)*64 + 14 * (9*64 + 1)*64          =   14,464 + 516,992 =   531,456
    # decoder     15 * (9*64 + 1)*64 + 14 * (9*64 + 1)*64
    #             + (9*64 + 1)*25              = 553,920 + 516,992 + 14,425        = 1,085,337
    # upsampling  2 * (9*25 + 1)*25                                               =    11,300
    # fusion      (9*(25 + A + 25) + 1)*64 + (64 + 1) = 30,016 + 65 with A = 2     =    30,081
    # and every auxiliary field fewer takes 9*64 = 576 away.
    assert 531_456 + 1_085_337 + 11_300 + 30_081 - 576 * (2 - auxiliary_channels) == parameters
    network = YNet(YNetConfig(auxiliary_channels=auxiliary_channels))
    assert count_parameters(network) == parameters


def test_count_parameters_ignores_frozen_weights():
    network = make_network()
    everything = count_parameters(network)
    network.output.requires_grad_(False)
    assert count_parameters(network) == everything - (8 + 1)  # 1 x 1 convolution from 8 to 1


def published_forward(weights, predictors, auxiliary, *, depth, scale_factor, clip_features):
    """The network of the methods page, layer by layer, from a dictionary of weights."""

    def convolution(name, x):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def deconvolution(name, x):
        return F.conv_transpose2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def upsample(x):
        size = [scale_factor * n for n in x.shape[-2:]]
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

    encoded = {0: predictors}
    for layer in range(1, depth + 1):
        encoded[layer] = F.relu(convolution(f"extractor.encoder.{layer - 1}", encoded[layer - 1]))
    kept = [encoded[layer] for layer in range(2, depth, 2)]  # 2, 4, ..., 14

    x = encoded[depth]
    for block in range(1, depth):
        x = F.relu(deconvolution(f"extractor.deconvolutions.{block - 1}", x))
        x = F.relu(convolution(f"extractor.decoder.{block - 1}", x))
        if block in range(1, depth - 1, 2):  # 1, 3, ..., 13
            x = F.relu(x + kept.pop())  # last kept first
    assert not kept
    x = F.relu(deconvolution(f"extractor.deconvolutions.{depth - 1}", x))
    x = convolution(f"extractor.decoder.{depth - 1}", x) + predictors
    if clip_features:
        x = F.relu(x)

    x = upsample(F.relu(convolution("before_upsampling", x)))
    x = F.relu(convolution("after_upsampling", x))
    x = torch.cat([x, auxiliary, upsample(predictors)], dim=1)
    x = F.relu(convolution("fusion", x))
    return F.conv2d(x, weights["output.weight"], weights["output.bias"])


@pytest.mark.parametrize("clip_features", [True, False])
def test_ynet_is_the_architecture_of_the_methods_page(clip_features):
    network = make_network(depth=15, clip_features=clip_features)
    # The default initialisation lets the trunk fade: larger weights make every layer count.
    for parameter in network.parameters():
        parameter.data *= 1.5
    predictors, auxiliary = make_inputs()
    with torch.no_grad():
        expected = published_forward(
            network.state_dict(),
            predictors,
            auxiliary,
            depth=15,
            scale_factor=4,
            clip_features=clip_features,
        )
        torch.testing.assert_close(network(predictors, auxiliary), expected, rtol=1e-5, atol=1e-5)


def test_ynet_brings_coarse_fields_to_the_fine_grid():
    predictors, auxiliary = make_inputs(scale_factor=8)
    network = make_network(scale_factor=8, depth=3)
    assert network(predictors, auxiliary).shape == (2, 1, 40, 56)  # lat 5 x 8, lon 7 x 8


def test_ynet_works_without_auxiliary_fields():
    predictors, auxiliary = make_inputs(auxiliary=0)
    assert make_network(auxiliary_channels=0, depth=3)(predictors, auxiliary).shape[1] == 1


def test_ynet_uses_every_source_and_every_auxiliary_field():
    network = make_network(depth=5)
    predictors, auxiliary = make_inputs()
    with torch.no_grad():
        before = network(predictors, auxiliary)
        for channel in range(3):
            changed = predictors.clone()
            changed[:, channel] += 1
            assert not torch.allclose(network(changed, auxiliary), before)
        for channel in range(2):
            changed = auxiliary.clone()
            changed[:, channel] += 1
            assert not torch.allclose(network(predictors, changed), before)


def test_ynet_can_fit_one_batch():
    network = make_network(depth=3, clip_features=False)
    initialise_he(network)
    predictors, auxiliary = make_inputs()
    target = torch.randn(2, 1, 20, 28, generator=torch.Generator().manual_seed(2)) * 0.1
    target += auxiliary.mean(1, keepdim=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(80):
        loss = F.mse_loss(network(predictors, auxiliary), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * target.var()


def test_ynet_keeps_the_samples_of_a_batch_apart():
    network = make_network(depth=5).train()
    predictors, auxiliary = make_inputs(batch=3)
    other = predictors.clone()
    other[1:] += 3
    with torch.no_grad():
        together, changed = network(predictors, auxiliary), network(other, auxiliary)
        alone = network(predictors[:1], auxiliary[:1])
    torch.testing.assert_close(together[0], changed[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-6)


def test_ynet_gives_the_same_after_saving_and_loading(tmp_path):
    network, other = make_network(seed=0, depth=5), make_network(seed=1, depth=5)
    inputs = make_inputs()
    assert not torch.equal(network(*inputs), other(*inputs))
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    other.load_state_dict(load_file(tmp_path / "network.safetensors"))
    assert torch.equal(network(*inputs), other(*inputs))


def test_ynet_drops_features_in_training_only():
    network = make_network(depth=3, dropout=0.5)
    inputs = make_inputs()
    plain = make_network(depth=3)
    assert torch.equal(network(*inputs), network(*inputs))
    assert torch.equal(network(*inputs), plain(*inputs))
    network.train()
    assert not torch.equal(network(*inputs), network(*inputs))


def test_ynet_drops_a_share_of_the_fused_features():
    network = make_network(features=64, depth=1, dropout=0.3).train()
    with torch.no_grad():
        network.fusion.weight.zero_()
        network.fusion.bias.fill_(1)  # every fused feature is 1, so the output counts them
        network.output.weight.fill_(0.7 / 64)  # dropout divides what is left by 1 - 0.3
        network.output.bias.zero_()
        left = network(*make_inputs())
    # 1120 cells with 64 features each: the standard error of the share is below 0.002.
    assert left.mean().item() == pytest.approx(0.7, abs=0.01)


def test_clip_features_cuts_negative_standardised_inputs():
    # A trunk that adds nothing passes its input on: below the mean of a source all is negative.
    predictors = -torch.rand(1, 3, 5, 7) - 0.1
    for clip, expected in [(True, torch.zeros_like(predictors)), (False, predictors)]:
        extractor = make_network(depth=5, clip_features=clip).extractor
        torch.nn.init.zeros_(extractor.decoder[-1].weight)
        torch.nn.init.zeros_(extractor.decoder[-1].bias)
        assert torch.equal(extractor(predictors), expected)


def dead_share(network, predictors):
    """Share of the units of the last encoder layer that are zero wherever one looks."""
    x = predictors
    with torch.no_grad():
        for convolution in network.extractor.encoder:
            x = F.relu(convolution(x))
    return (x.amax((0, 2, 3)) == 0).float().mean().item()


def test_initialise_he_keeps_the_units_of_a_deep_encoder_alive():
    predictors, _ = make_inputs(batch=16)
    default, he = [], []
    for seed in range(4):
        network = make_network(seed, features=64, depth=15)
        default.append(dead_share(network, predictors))
        initialise_he(network)
        he.append(dead_share(network, predictors))
    assert np.mean(default) > 0.25  # science: a third to a half
    assert np.mean(he) < 0.1


def test_initialise_he_keeps_the_variance_of_the_activations():
    network = make_network(features=64, depth=15)
    predictors, _ = make_inputs(batch=16)

    def last_over_first():
        x, spread = predictors, []
        with torch.no_grad():
            for convolution in network.extractor.encoder:
                x = F.relu(convolution(x))
                spread.append(x.square().mean().item())
        return spread[-1] / spread[0]

    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.zero_()  # a constant from the biases is no signal
    assert last_over_first() < 1e-6
    initialise_he(network)
    # Not quite 1: at the edges of 5 x 7 cells a third of the inputs is padding.
    assert 1e-3 < last_over_first() < 10


def test_initialise_he_starts_from_the_mean_of_the_reference():
    network = make_network(depth=3)
    initialise_he(network)
    assert torch.equal(network(*make_inputs()), torch.zeros(2, 1, 20, 28))


def test_drawing_of_the_network_has_its_layers_and_channels():
    drawing = ElementTree.parse(ROOT / "book" / "_static" / "architecture.svg")
    drawn = [part.attrib for part in drawing.iter() if "data-layer" in part.attrib]
    network = YNet(YNetConfig())
    extractor = network.extractor
    decoder = chain.from_iterable(zip(extractor.deconvolutions, extractor.decoder))
    layers = [*extractor.encoder, *decoder, network.before_upsampling, network.after_upsampling]
    layers += [network.fusion, network.output]
    kinds = {(False, 3): "conv3x3", (True, 3): "deconv3x3", (False, 1): "conv1x1"}
    expected = [
        (
            kinds[isinstance(layer, torch.nn.ConvTranspose2d), layer.kernel_size[0]],
            *(str(layer.in_channels), str(layer.out_channels)),
        )
        for layer in layers
    ]
    with_weights = [part for part in drawn if "data-in" in part]
    assert expected == [
        tuple(part[f"data-{key}"] for key in ("layer", "in", "out")) for part in with_weights
    ]
    scales = {part["data-scale"] for part in drawn if part["data-layer"] == "bilinear"}
    assert scales == {str(network.config.scale_factor)}
    # the outputs of the encoder's layers 2, 4, ..., 14, the innermost last in and first out
    skips = [int(part.get("data-skip")) for part in drawing.iter() if part.get("data-skip")]
    assert skips == [14, 12, 10, 8, 6, 4, 2]
    joined = {part.get("data-part"): part.get("data-channels") for part in drawing.iter()}
    assert (joined["auxiliary"], joined["features"]) == ("2", "25") == ("2", joined["inputs"])
