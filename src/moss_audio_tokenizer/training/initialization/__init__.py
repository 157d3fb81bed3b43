"""Initialization of a codec: from data, from a low-band pass-through, at another sampling rate."""
