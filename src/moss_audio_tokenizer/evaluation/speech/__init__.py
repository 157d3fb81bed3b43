"""Speech recognition and synthesis on codes, measured by the number of quantizers.

Owns runs of both and their results; models are behind two protocols. It follows Seed-TTS-Eval.
"""
