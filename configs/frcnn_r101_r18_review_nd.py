# Faster R-CNN on COCO: R101-FPN teaches R18-FPN by ReviewKD and the ND loss (ReviewKD++).
_base_ = "./frcnn_r101_r18.py"
method = "review_nd"
