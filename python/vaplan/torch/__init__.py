"""For training with PyTorch: a data set over a store, the richness-aware loss, and the network HAN.

Needs the package ``torch``, version 2 or later.
"""

from ._dataset import SegmentDataset, collate
from ._han import HAN, ParserOutputs
from ._loss import Loss, RichnessLoss

__all__ = ["HAN", "Loss", "ParserOutputs", "RichnessLoss", "SegmentDataset", "collate"]
