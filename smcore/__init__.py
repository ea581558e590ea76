"""Soil moisture from CMIP6, fused and downscaled by deep learning: the science of the book."""

__version__ = "0.1.0"
