"""The codec as PyTorch modules; importing this package alone loads nothing heavy.

Legend of the shape names used in signatures:

    batch        rows that are computed together
    channels     1, or 2 for stereo
    samples      waveform samples of one channel
    steps        positions of a stage's sequence, at that stage's own rate
    frames       positions at the codes' rate, 80 ms each in the released models
    width        channels of an activation
    heads, head_dim   attention heads and their size
    num_quantizers    layers of codes, first axis of every tensor of codes
"""
