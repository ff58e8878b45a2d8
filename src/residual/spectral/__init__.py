"""Principal components of units, what their spectra say, how they are shaped and how alike they are."""

from residual.spectral.bases import Origin, SpectralBases
from residual.spectral.dimension import TwoNN, linear_dimension, two_nn, two_nn_estimate, two_nn_scales
from residual.spectral.fit import fit_bases, fit_halves, fit_output, stream_moments
from residual.spectral.geometry import MEASURES, GeometrySettings, unit_geometry
from residual.spectral.neighbours import nearest_two
from residual.spectral.pca import PCA, IncrementalPCA, pca
from residual.spectral.similarity import (
    SIMILARITIES,
    SimilaritySettings,
    anchors_of,
    compare_bases,
    linear_cka,
    mean_correlation,
    mean_cosine,
    mean_distance,
    principal_angles,
    relative,
    spectral_cosine,
)
from residual.spectral.unit_moments import UnitMoments

__all__ = [
    "MEASURES",
    "PCA",
    "SIMILARITIES",
    "GeometrySettings",
    "IncrementalPCA",
    "Origin",
    "SimilaritySettings",
    "SpectralBases",
    "TwoNN",
    "UnitMoments",
    "anchors_of",
    "compare_bases",
    "fit_bases",
    "fit_halves",
    "fit_output",
    "linear_cka",
    "linear_dimension",
    "mean_correlation",
    "mean_cosine",
    "mean_distance",
    "nearest_two",
    "pca",
    "principal_angles",
    "relative",
    "spectral_cosine",
    "stream_moments",
    "two_nn",
    "two_nn_estimate",
    "two_nn_scales",
    "unit_geometry",
]
