"""Decoys as other tools take them: rules, signatures, indicators, lists.

Pure: decoys, times and salts are arguments, and what comes back are the bytes of files. One module
writes for one tool; ``patterns`` chooses what of a decoy is looked for, ``expressions`` how.
"""
