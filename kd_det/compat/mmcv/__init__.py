"""A stand-in for the compiled extension of mmcv, on the kernels of torchvision."""
