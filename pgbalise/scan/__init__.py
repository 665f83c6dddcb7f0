"""Looking for decoys in files of any kind.

::

    scanning   IO    files, folders, standard input; what was found
      -> opening  IO    what is in a file: archives, mail, documents, databases, as texts
           mail, markup      parts of mail; PURE text of XML, HTML, JSON, RTF
      -> stream   PURE  a text in pieces: offsets, lines, borders
           book      PURE  where decoys are in a piece, however they are written
           lexicon   PURE  all occurrences of very many words

Needs the extra ``scan``; each library is imported only when a file needs it.
"""
