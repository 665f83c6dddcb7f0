"""Patients who do not exist: what they are called, how they are drawn, how they are recognised.

Pure: keys, seeds and times are arguments. What reads the database, writes it, scans files or
speaks to other establishments is elsewhere.
"""
