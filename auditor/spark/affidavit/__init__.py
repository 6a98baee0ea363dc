"""The evidence format in Python, written from schemas/FORMAT.md alone.

What a verifier needs of it: canonical JSON, leaves, the tree, notes, files, the trust file. Two use it: the Spark job beside
this folder, and the second verifier of the tests. It shares nothing with the Rust programs.
"""
