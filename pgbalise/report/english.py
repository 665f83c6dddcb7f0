"""What a report says in English; braces stand for values."""

from __future__ import annotations

ENGLISH = {
    "report_title": "Trace report",
    "months": "January February March April May June July August September October November"
    " December",
    "and": "and",
    "others": "{count} more",
    "of": "{part} of {whole}",
    "relation": "Relation",
    "database": "Database",
    "created": "Made on",
    "file": "this file",
    "files": "these files",
    "file_start": "This file",
    "files_start": "These files",
    "of_file": "of this file",
    "of_files": "of these files",
    "contain_file": "contains",
    "contain_files": "contain",
    "verdict_title": "Verdict",
    "verdict_one": "{These} {contain} data from the copy supplied to {names}.",
    "verdict_many": "{These} {contain} data from the copies supplied to {names}.",
    "verdict_none": "No recipient can be named as a source {of_these}.",
    "explained_one": "The chance that this method names any innocent recipient is at most 1"
    " in\u00a0{chance}. A recipient is a database account, not a person.",
    "explained_many": "The chance that this method names even one innocent recipient is at most"
    " 1 in\u00a0{chance}. A recipient is a database account, not a person.",
    "explained_none": "For none of the {recipients} recipients does the evidence reach the"
    " level from which this method names someone. That clears no one: the data may be too few,"
    " altered too much, or from another source.",
    "explained_none_of_one": "The evidence against the one recipient that was examined does not"
    " reach the level from which this method names someone. That clears no one: the data may be"
    " too few, altered too much, or from another source.",
    "decoys_found": "Decoys, invented patients issued to a single recipient each, were found as"
    " well: {list}. The evidence below counts them.",
    "decoys_title": "Decoys found",
    "decoys_text": "A decoy is a patient who does not exist, invented for one recipient alone from"
    " the secret key. A recipient who has nothing to do with the file has decoys that are in it by"
    " chance only: among all values of that kind in the file one would have to be, unknowingly, the"
    " one that was drawn. How unlikely that is, is evidence of its own and multiplies that of the"
    " values. Numbers stand for the decoys here, so that this report betrays none of them.",
    "decoys_caption": "Decoys in the file, with the evidence of each alone",
    "decoy": "Decoy",
    "decoy_name": "{recipient}, number {number}",
    "recognised_by": "Recognised by",
    "trait_record": "record number",
    "trait_nir": "national number",
    "trait_phone": "telephone",
    "trait_mail": "mail address",
    "trait_rpps": "professional’s number",
    "trait_person": "names and birth date",
    "decoys_of": "{count} issued to {name}",
    "strongest_evidence": "Strongest evidence",
    "needed": "Threshold",
    "compared": "Recipients compared",
    "rows_matched": "Rows matched",
    "meaning_title": "What the number means",
    "meaning_1": "Every recipient is given the data with its own pattern of very small changes,"
    " drawn at random with a secret key. A trace compares the file with the pattern of each"
    " recipient, and sums up the comparison in one number, the e-value. For a recipient who has"
    " nothing to do with the file the e-value is 1 or less on average. It can be larger by"
    " chance, but rarely: 1,000 or more in at most one case in 1,000, a million or more in at"
    " most one case in a million.",
    "meaning_threshold": "Here {recipients} recipients were compared, so chance had"
    " {recipients} opportunities. A recipient is therefore named only from {threshold} on. With"
    " that threshold, the probability that any innocent recipient at all is named is at most"
    " {alpha}, that is 1 in\u00a0{chance}.",
    "meaning_threshold_one": "A recipient is named only from {threshold} on. With that"
    " threshold, the probability that an innocent recipient is named is at most {alpha}, that is"
    " 1 in\u00a0{chance}.",
    "meaning_here": "The e-value of {name} is {value}. If that recipient had nothing to do with"
    " the file, a value as large as this would occur in at most one case in\u00a0{alone}.",
    "meaning_among": "That it occurs for any of the {recipients} recipients compared would"
    " still happen in at most one case in\u00a0{among}.",
    "meaning_extreme": "At such odds chance is no longer the question; whether keys, files and"
    " records were handled correctly is.",
    "meaning_guilt": "The number is not the probability of guilt, nor of innocence. It measures"
    " how badly chance explains what the file shows, and has to be weighed with the other facts"
    " of the case.",
    "ranking_title": "All recipients, ranked by evidence",
    "axis_rank": "recipients, strongest evidence first",
    "axis_value": "evidence (e-value)",
    "threshold_label": "threshold {threshold} = N/α, with N = {recipients}, α = {alpha}",
    "plot_caption": "Each dot is one of {recipients} recipients; each grid line stands for"
    " {step} times the one below. Dots on or above the dashed line are named as sources. Around 1"
    " and below there is no evidence.",
    "plot_caption_one": "The dot is the only recipient; each grid line stands for {step} times"
    " the one below. A dot on or above the dashed line is named as a source. Around 1 and below"
    " there is no evidence.",
    "plot_clipped": "Values below {low} are drawn at the lower edge.",
    "plot_described": "Evidence against {recipients} recipients on a logarithmic scale. The"
    " threshold is {threshold}; {accused} at or above it. The strongest is {name} with {value}.",
    "ranking_caption": "Strongest evidence: {shown} of {recipients} recipients",
    "rank": "Rank",
    "recipient": "Recipient",
    "e_value": "E-value",
    "against_threshold": "Against threshold",
    "agreeing_cells": "Agreeing cells",
    "decoys": "Decoys",
    "finding": "Finding",
    "named": "named",
    "not_named": "not named",
    "bar_note": "Bars count powers of ten from 1 upwards; the tick is the threshold.",
    "rest": "The other {count} recipients have {value} or less.",
    "carriers_title": "Evidence by column",
    "cells": "{marked} cells of the matched rows carry a mark; the evidence of {used} of them"
    " was used.",
    "carriers_text": "A cell is informative when its value in the file speaks more for one"
    " possible mark than for the other. Marks of an innocent recipient agree with many cells by"
    " chance, so a share of agreeing cells says little by itself; the e-value weighs each cell by"
    " how rare its mark is.",
    "carriers_none": "No evidence by column was recorded.",
    "carriers_caption": "Cells compared with the marks of {name}, the recipient with the"
    " strongest evidence",
    "carrier": "Column",
    "selected": "Marked cells",
    "informative": "Informative",
    "agree": "Agree",
    "disagree": "Disagree",
    "share_agreeing": "Share agreeing",
    "total": "Total",
    "noise_title": "What was done to the data",
    "noise_none": "Nothing was recorded about changes to the values.",
    "noise_unaltered": "The values were left as they had been delivered, or nearly so.",
    "noise_altered": "Values were altered after delivery in {names}.",
    "noise_text": "This was estimated from all matched cells before any recipient was looked"
    " at, and does not affect the bound on false accusation. A change in the database since"
    " delivery shows as an alteration too.",
    "noise_caption": "Changes to the cells of each column",
    "transformation": "What happened",
    "share": "Share of cells",
    "matching_title": "Matching the file with the database",
    "matching_text": "Of {read} rows read, {aligned} ({share}) were matched with a row of the"
    " database.",
    "leak_column": "Column in the file",
    "used_as": "Used as",
    "relation_column": "Column in the relation",
    "use_carrier": "evidence",
    "use_key": "row key",
    "use_ignored": "not used",
    "inputs_title": "Files, key and versions",
    "inputs_text": "Whoever holds a file can check that it is the one examined here: its"
    " SHA-256 must be the same.",
    "file_size": "{rows} rows, {size} bytes",
    "epoch": "Epoch of the marks",
    "epoch_times": "in force from {start} to {end}",
    "epoch_now": "today",
    "epochs_untried": "Not tried, for want of their master key: {listed}",
    "key_fingerprint": "Key fingerprint",
    "versions": "Software",
    "method_title": "How it was computed",
    "method_marks": "Each recipient <i>j</i> has a codeword, a sequence of secret bits"
    " <i>X<sub>ji</sub></i> that are drawn independently of one another; bit <i>i</i> is 1 with a"
    " probability <i>p<sub>i</sub></i>. Some cells, picked with a secret key, are each assigned a"
    " position <i>i</i>, and the value delivered in them depends on bit <i>i</i>, within the"
    " tolerance that the policy sets.",
    "method_evidence": "The rows of the file are matched with the database. For each position"
    " <i>i</i>, let <i>f<sub>i</sub></i>(<i>x</i>) be the likelihood of what the file shows there"
    " if a source has bit <i>x</i>. The evidence against recipient <i>j</i> is",
    "method_average": "averaged over many assumptions on how many recipients acted together and"
    " how they combined their copies.",
    "method_statement": "<b>Bound on false accusation.</b> If recipient <i>j</i> is innocent,"
    " the file came about without its copy, so its bits are independent of the file and every"
    " factor averages 1: the mean of <i>E<sub>j</sub></i> is at most 1. By Markov’s inequality"
    " <i>E<sub>j</sub></i> reaches <i>N</i>/<i>α</i> with a probability of at most"
    " <i>α</i>/<i>N</i>. There are at most <i>N</i> innocent recipients, so the probability that"
    " any of them is named is at most <i>α</i>, whatever the thief did. Here"
    " <i>N</i>\u00a0=\u00a0{recipients}, <i>α</i>\u00a0=\u00a0{alpha} and"
    " <i>N</i>/<i>α</i>\u00a0=\u00a0{threshold}.",
    "method_key": "A wrong assumption about the thief can hide a source; it cannot make the"
    " bound fail. The bits are derived from the master key by a cryptographic pseudo-random"
    " function, so the statement rests on that key having stayed secret.",
    "limits_title": "What this report cannot prove",
    "limits_text": "The report says whose copy it is. The following it cannot say.",
    "limit_person": "<b>Who.</b> A recipient is a database account. Who used it, who received"
    " the data from there, and whether the copy was stolen from the recipient in turn has to be"
    " established by other means.",
    "limit_copy": "<b>When, why, how much.</b> It does not show when or why the data left, nor"
    " that all of the file comes from the same copy. There may be further sources that left too"
    " little evidence.",
    "limit_absence": "<b>Innocence.</b> A recipient who is not named is not cleared. Data taken"
    " from the unmarked tables, from a backup for instance, carries no recipient’s marks.",
    "limit_frame": "<b>Framing.</b> Whoever has full control of the database, or the master"
    " key, could make a file that bears someone else’s marks. The registry’s commitments show"
    " that codewords were not changed after enrolment; they do not show that nobody misused them."
    " Who held the key and these rights belongs in the case file.",
    "limit_beforehand": "<b>Rules made afterwards.</b> The bound holds if <i>α</i> and the list"
    " of recipients were fixed before the results were seen.",
    "limit_source": "<b>Errors of handling.</b> The bound covers chance, not a file that was"
    " exchanged, an account enrolled under a wrong name, or a fault in the software.",
    "limit_repeat": "<b>A second opinion</b> needs the files above, the policy of this epoch,"
    " the master key with this fingerprint and the database as it was: with them an independent"
    " expert must reach the same numbers.",
    "footer": "Made by pgbalise. This file is complete in itself and contains no patient data"
    " and no key.",
    "relations": "Relations",
    "case": "Case",
    "case_text": "{title} (number {number}), look {look}",
    "signer_head": "Signed by",
    "alpha_spent": "This was look {look} of a case in which the probability that anyone is ever"
    " accused falsely is kept to {whole}; this look spent {part} of it.",
    "rounds_title": "Named in rounds",
    "rounds_text": "Recipients are named in rounds. What those named contributed explains part"
    " of the file; it is then taken as known, and everybody else is examined again against what"
    " remains. Someone who hid among others can be named then. This is called conditioning.",
    "rounds_bound": "The bound on false accusation covers all rounds together. As long as"
    " nobody innocent has been named, what is taken as known depends on the sources alone, never"
    " on the bits of an innocent recipient, so that the evidence against each innocent still"
    " averages at most 1.",
    "rounds_caption": "Who was named when",
    "round": "Round",
    "newly_named": "Newly named",
    "round_none": "nobody",
    "source_title": "The database since the copy was made",
    "source_text": "The file is compared with the rows as they are stored today. These are"
    " estimates of how much has changed since; changes can hide a source, and cannot make an"
    " innocent recipient look like one.",
    "source_same": "No change was found.",
    "source_caption": "Estimated changes since the copy was made",
    "what_changed": "What changed",
    "share_changed": "Share",
    "rows_deleted": "rows since deleted",
    "cells_changed": "cells changed in {column}",
    "table": "Table",
    "matched_with": "Matched with",
    "rows_read": "Rows read",
    "aligned": "Matched",
    "ambiguous": "Ambiguous",
    "without": "Without counterpart",
    "duplicates": "Repeated",
    "altered": "Cells altered",
    "how": "How",
    "no_relation": "no relation",
    "way_key": "by key",
    "way_linkage": "by content",
    "way_none": "not matched",
    "tables_text": "Rows are matched by their key where the file still has it, otherwise by"
    " content: all columns together, each value counting the more the rarer it is. Rows that fit"
    " several stored rows equally well are ambiguous and carry little weight or none; a repeated"
    " row counts once. Matching never looks at who received what.",
    "doubtful": "Columns of {names} may not tell one row of the database from another;"
    " rows that fit several were left out.",
    "skipped": "Not read:",
    "tables_caption": "Tables in the files, and their rows",
    "mapping_caption": "Columns of {table}",
    "found_by": "Found by",
    "confidence": "Certainty",
    "written_as": "Written as",
    "by_name": "name",
    "by_content": "content",
    "by_given": "given by the auditor",
    "by_none": "–",
    "use_link": "finding the row",
    "extracts_title": "Extracts that it could be",
    "extracts_none": "The ledger of extracts was not consulted.",
    "extracts_nobody": "The ledger holds no extract of the recipients named that fits.",
    "extracts_text": "The ledger records what each recipient took, and when. The extracts below"
    " fit what was found; the one that leaked may be among them, and nothing here adds to the"
    " evidence above.",
    "extracts_caption": "Extracts of the recipients named: {shown} of {fitting} that fit",
    "sequence": "Entry",
    "taken": "Taken",
    "rows_delivered": "Rows",
    "through": "Through",
    "why": "Why it fits",
    "not_known": "not known",
    "digest_policy": "Policy",
    "digest_source": "Stored rows",
    "digest_recipients": "Recipients compared",
    "digest_mapping": "Columns given",
    "commitments": "Commitments",
    "commitments_unchecked": "not checked",
    "commitments_checked": "the codeword of each recipient named equals the commitment made at"
    " enrolment, as the database keeps it",
    "commitments_registry": "the codeword of each recipient named equals the commitment made at"
    " enrolment, as the registry’s ledger keeps it",
    "commitment_recorded": "{name} recorded on {at}",
    "parameters": "Parameters",
    "limit_account": "<b>Custody.</b> It does not show who held the file between the leak and"
    " this examination, nor that it was found where it is said to have been found. The hash fixes"
    " the file from this examination on.",
    "limit_stored": "<b>Stored rows.</b> The comparison is with the rows stored today. That"
    " they are what was delivered then is the hospital’s statement, not a result.",
    "limit_independence": "<b>Independence.</b> The bound takes for granted that an innocent’s"
    " bits and the file came about independently. If the file was made with knowledge of"
    " someone’s codeword, or by the hospital itself to test the method, it says nothing.",
    "signature_title": "Signature",
    "unsigned": "This report is not signed. Nothing but the care of whoever kept it shows that"
    " it is as it was made.",
    "signed": "This report is sealed: the last line of the file holds an Ed25519 signature over"
    " everything before it. A changed character makes it void.",
    "signed_check": "Whoever has the signer’s public key from a source they trust can check it,"
    " without any database:",
    "signed_paper": "A printed copy cannot be checked; the file can.",
    "public_key": "Public key",
    "signed_at": "Signed on",
    "authority": "Time confirmed by",
    "no_authority": "nobody; the time is the signer’s own statement",
}
