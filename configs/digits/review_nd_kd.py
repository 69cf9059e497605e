# The student of plain.py, taught by ReviewKD, the ND loss and KD.
_base_ = "./frcnn_r50_r18.py"
method = "review_nd_kd"
