"""Principal components of units, and what their spectra say."""

from residual.spectral.bases import Origin, SpectralBases
from residual.spectral.fit import fit_bases
from residual.spectral.pca import PCA, IncrementalPCA, pca
from residual.spectral.stream import stream_moments
from residual.spectral.unit_moments import UnitMoments

__all__ = [
    "PCA",
    "IncrementalPCA",
    "Origin",
    "SpectralBases",
    "UnitMoments",
    "fit_bases",
    "pca",
    "stream_moments",
]
