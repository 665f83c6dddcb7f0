"""Decoys for recipients: learned from the stored rows, given identities and keys, written.

IO: reads the protected relations, writes schema ``balise_decoy`` and the catalog's book of decoys.
What is drawn, and how, is `pgbalise.decoys`.
"""

from pgbalise.issuing.issue import Issue, issue_decoys, make_decoys, reserve, retire

__all__ = ["Issue", "issue_decoys", "make_decoys", "reserve", "retire"]
