"""YNet: a convolutional network that fuses coarse fields and brings them to a fine grid.

After Liu, Ganguly and Dy (2020), "Climate Downscaling Using YNet", KDD,
https://doi.org/10.1145/3394486.3403366, as described in the methods page of the book.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class YNetConfig:
    """Sizes and choices of the network; without its last two it is not the published one."""

    in_channels: int = 25  # one per source
    auxiliary_channels: int = 2  # static fields on the fine grid
    features: int = 64
    depth: int = 15  # convolutions of the encoder, blocks of the decoder
    scale_factor: int = 8  # fine cells per coarse cell, along each axis
    dropout: float = 0.0  # share of the fused features
    clip_features: bool = True  # ReLU at the end of the trunk: cuts negative, standardised, inputs
    skips: bool = True  # connections from the encoder to the decoder


def _convolution(channels_in, channels_out):
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


class _Extractor(nn.Module):
    """Encoder and decoder with skip connections; every layer keeps the coarse grid."""

    def __init__(self, config):
        super().__init__()
        c, f = config.in_channels, config.features
        self.clip, self.skips = config.clip_features, config.skips
        inner = config.depth - 1
        self.encoder = nn.ModuleList(_convolution(n, f) for n in [c] + [f] * inner)
        # A convolution after every deconvolution, against the checkerboard.
        self.deconvolutions = nn.ModuleList(
            nn.ConvTranspose2d(f, f, 3, padding=1) for _ in range(config.depth)
        )
        self.decoder = nn.ModuleList(_convolution(f, n) for n in [f] * inner + [c])

    def forward(self, predictors):  # (batch, source, lat, lon)
        x, skips = predictors, []
        for number, convolution in enumerate(self.encoder, 1):
            x = F.relu(convolution(x))  # (batch, feature, lat, lon)
            if self.skips and number % 2 == 0 and number < len(self.encoder):
                skips.append(x)
        layers = zip(self.deconvolutions, self.decoder, strict=True)
        for number, (deconvolution, convolution) in enumerate(layers, 1):
            x = convolution(F.relu(deconvolution(x)))
            if number == len(self.decoder):
                break
            x = F.relu(x)
            if number % 2 == 1 and skips:
                x = F.relu(x + skips.pop())
        x = x + predictors  # (batch, source, lat, lon)
        return F.relu(x) if self.clip else x


class YNet(nn.Module):
    """Coarse predictors and fine auxiliary fields to one fine field.

    ``YNet(config)(predictors, auxiliary)``: (batch, C, lat, lon), (batch, A, s lat, s lon) to
    (batch, 1, s lat, s lon), with C sources, A auxiliary fields and scale factor s.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        c, f = config.in_channels, config.features
        self.extractor = _Extractor(config)
        self.upsample = nn.Upsample(
            scale_factor=config.scale_factor, mode="bilinear", align_corners=False
        )
        self.before_upsampling = _convolution(c, c)
        self.after_upsampling = _convolution(c, c)
        self.fusion = _convolution(2 * c + config.auxiliary_channels, f)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Conv2d(f, 1, 1)

    def forward(self, predictors, auxiliary):
        features = self.extractor(predictors)  # (batch, source, lat, lon)
        x = self.upsample(F.relu(self.before_upsampling(features)))
        x = F.relu(self.after_upsampling(x))  # (batch, source, s lat, s lon)
        x = torch.cat([x, auxiliary, self.upsample(predictors)], dim=1)
        x = self.dropout(F.relu(self.fusion(x)))  # (batch, feature, s lat, s lon)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would round theta to 1e-3
            return self.output(x.float())  # (batch, 1, s lat, s lon)


def initialise_he(network):
    """He initialisation, which keeps the variance of the activations through the ReLUs.

    With the default a third to a half of the units are dead after 15 layers (He, Zhang, Ren and Sun
    2015, https://doi.org/10.1109/ICCV.2015.123). The last layer starts at zero, which gives the
    mean of the reference.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    nn.init.zeros_(network.output.weight)


def count_parameters(network):
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
