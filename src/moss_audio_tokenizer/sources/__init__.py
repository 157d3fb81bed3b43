"""Sources: what a data set consists of, wherever its recordings lie.

Owns manifests' lines, folders of sound files, WebDataset shards and tables of Hugging Face data
sets, as entries that can be opened one by one. Knows nothing of what they are opened for.
"""
