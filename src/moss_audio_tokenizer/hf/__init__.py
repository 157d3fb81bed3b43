"""The codec in the manner of transformers: `MossAudioTokenizerModel` and its companions.

Importing this package alone loads nothing heavy; `registration` needs the standard library only.
"""
