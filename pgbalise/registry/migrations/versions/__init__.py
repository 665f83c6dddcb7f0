"""The revisions, in the order that their numbers say."""
