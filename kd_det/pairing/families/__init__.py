"""Families of detectors: everything in pairing that differs by kind.

============ ================================================== ===================================
family       mmdet                                              beside the pyramid
============ ================================================== ===================================
two_stage    Faster, Mask, Cascade R-CNN, HTC ...               logits and embeddings of RoIs
dense        RetinaNet, FCOS, ATSS, GFL, RTMDet, YOLOX ...      class maps, boxes, embeddings of
                                                                positions
query        DETR, Deformable, Conditional and DAB-DETR, DINO   encoder, decoder
============ ================================================== ===================================

``kinds`` says which family a config's model is of, or why it is of none; ``offers`` what a pair
has in common, which is what a method may need.
"""

from kd_det.pairing.families.base import Family
from kd_det.pairing.families.kinds import find_family
from kd_det.pairing.families.two_stage import TwoStage

__all__ = ["Family", "TwoStage", "find_family"]
