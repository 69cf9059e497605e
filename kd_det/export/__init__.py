"""A student that stands alone: what MMDetection or MMPretrain loads without this package."""
