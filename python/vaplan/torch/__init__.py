"""For training with PyTorch: a data set over a store, the richness-aware loss, and the networks.

Needs the package ``torch``, version 2 or later.
"""

from ._dataset import SegmentDataset, collate
from ._han import HAN
from ._loss import Loss, RichnessLoss
from ._pooling import ParserOutputs
from ._transformer import TemporalTransformer

__all__ = ["HAN", "Loss", "ParserOutputs", "RichnessLoss", "SegmentDataset", "TemporalTransformer", "collate"]
