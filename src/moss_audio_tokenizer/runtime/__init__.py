"""The codec's arithmetic arranged for speed, for offline use and for streams.

Same functions of the same weights as the modules beside this package, which training uses
and tests compare against: layer scales, weight norm and the affine part of the quantizer are
folded, weights packed, and what a stream remembers lies in rings. Knows nothing of files,
formats or who calls it.
"""
