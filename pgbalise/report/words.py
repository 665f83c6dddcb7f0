"""What a report says, in each language; braces stand for values."""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "fr"]

WORDS: dict[Language, dict[str, str]] = {
    "en": {
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
        "explained_many": "The chance that this method names even one innocent recipient is at"
        " most 1 in\u00a0{chance}. A recipient is a database account, not a person.",
        "explained_none": "For none of the {recipients} recipients does the evidence reach the"
        " level from which this method names someone. That clears no one: the data may be too"
        " few, altered too much, or from another source.",
        "explained_none_of_one": "The evidence against the one recipient that was examined does"
        " not reach the level from which this method names someone. That clears no one: the data"
        " may be too few, altered too much, or from another source.",
        "decoys_found": "Decoys, invented patients issued to a single recipient each, were found"
        " as well: {list}. They are not counted in the evidence below.",
        "decoys_of": "{count} issued to {name}",
        "strongest_evidence": "Strongest evidence",
        "needed": "Threshold",
        "compared": "Recipients compared",
        "rows_matched": "Rows matched",
        "meaning_title": "What the number means",
        "meaning_1": "Every recipient is given the data with its own pattern of very small"
        " changes, drawn at random with a secret key. A trace compares the file with the pattern"
        " of each recipient, and sums up the comparison in one number, the e-value. For a"
        " recipient who has nothing to do with the file the e-value is 1 or less on average. It"
        " can be larger by chance, but rarely: 1,000 or more in at most one case in 1,000, a"
        " million or more in at most one case in a million.",
        "meaning_threshold": "Here {recipients} recipients were compared, so chance had"
        " {recipients} opportunities. A recipient is therefore named only from {threshold} on."
        " With that threshold, the probability that any innocent recipient at all is named is at"
        " most {alpha}, that is 1 in\u00a0{chance}.",
        "meaning_threshold_one": "A recipient is named only from {threshold} on. With that"
        " threshold, the probability that an innocent recipient is named is at most {alpha}, that"
        " is 1 in\u00a0{chance}.",
        "meaning_here": "The e-value of {name} is {value}. If that recipient had nothing to do"
        " with the file, a value as large as this would occur in at most one case"
        " in\u00a0{alone}.",
        "meaning_among": "That it occurs for any of the {recipients} recipients compared would"
        " still happen in at most one case in\u00a0{among}.",
        "meaning_extreme": "At such odds chance is no longer the question; whether keys, files"
        " and records were handled correctly is.",
        "meaning_guilt": "The number is not the probability of guilt, nor of innocence. It"
        " measures how badly chance explains what the file shows, and has to be weighed with the"
        " other facts of the case.",
        "ranking_title": "All recipients, ranked by evidence",
        "axis_rank": "recipients, strongest evidence first",
        "axis_value": "evidence (e-value)",
        "threshold_label": "threshold {threshold} = N/α, with N = {recipients}, α = {alpha}",
        "plot_caption": "Each dot is one of {recipients} recipients; each grid line stands for"
        " {step} times the one below. Dots on or above the dashed line are named as sources."
        " Around 1 and below there is no evidence.",
        "plot_caption_one": "The dot is the only recipient; each grid line stands for {step}"
        " times the one below. A dot on or above the dashed line is named as a source. Around 1"
        " and below there is no evidence.",
        "plot_clipped": "Values below {low} are drawn at the lower edge.",
        "plot_described": "Evidence against {recipients} recipients on a logarithmic scale. The"
        " threshold is {threshold}; {accused} at or above it. The strongest is {name} with"
        " {value}.",
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
        " possible mark than for the other. Marks of an innocent recipient agree with many cells"
        " by chance, so a share of agreeing cells says little by itself; the e-value weighs each"
        " cell by how rare its mark is.",
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
        " database {how}. Rows without a clear match were left out.",
        "matched_by_key": "by their key",
        "matched_by_content": "by their content",
        "matching_caption": "Columns of the file",
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
        " <i>X<sub>ji</sub></i> that are drawn independently of one another; bit <i>i</i> is 1"
        " with a probability <i>p<sub>i</sub></i>. Some cells, picked with a secret key, are each"
        " assigned a position <i>i</i>, and the value delivered in them depends on bit <i>i</i>,"
        " within the tolerance that the policy sets.",
        "method_evidence": "The rows of the file are matched with the database. For each position"
        " <i>i</i>, let <i>f<sub>i</sub></i>(<i>x</i>) be the likelihood of what the file shows"
        " there if a source has bit <i>x</i>. The evidence against recipient <i>j</i> is",
        "method_average": "averaged over many assumptions on how many recipients acted together"
        " and how they combined their copies.",
        "method_statement": "<b>Bound on false accusation.</b> If recipient <i>j</i> is innocent,"
        " the file came about without its copy, so its bits are independent of the file and every"
        " factor averages 1: the mean of <i>E<sub>j</sub></i> is at most 1. By Markov’s"
        " inequality <i>E<sub>j</sub></i> reaches <i>N</i>/<i>α</i> with a probability of at most"
        " <i>α</i>/<i>N</i>. There are at most <i>N</i> innocent recipients, so the probability"
        " that any of them is named is at most <i>α</i>, whatever the thief did. Here"
        " <i>N</i>\u00a0=\u00a0{recipients}, <i>α</i>\u00a0=\u00a0{alpha} and"
        " <i>N</i>/<i>α</i>\u00a0=\u00a0{threshold}.",
        "method_key": "A wrong assumption about the thief can hide a source; it cannot make the"
        " bound fail. The bits are derived from the master key by a cryptographic pseudo-random"
        " function, so the statement rests on that key having stayed secret.",
        "limits_title": "What this report cannot prove",
        "limits_text": "The report says whose copy it is. The following it cannot say.",
        "limit_person": "<b>Who.</b> A recipient is a database account. Who used it, who received"
        " the data from there, and whether the copy was stolen from the recipient in turn has to"
        " be established by other means.",
        "limit_copy": "<b>When, why, how much.</b> It does not show when or why the data left,"
        " nor that all of the file comes from the same copy. There may be further sources that"
        " left too little evidence.",
        "limit_absence": "<b>Innocence.</b> A recipient who is not named is not cleared. Data"
        " taken from the unmarked tables, from a backup for instance, carries no recipient’s"
        " marks.",
        "limit_frame": "<b>Framing.</b> Whoever has full control of the database, or the master"
        " key, could make a file that bears someone else’s marks. The registry’s commitments show"
        " that codewords were not changed after enrolment; they do not show that nobody misused"
        " them. Who held the key and these rights belongs in the case file.",
        "limit_beforehand": "<b>Rules made afterwards.</b> The bound holds if <i>α</i> and the"
        " list of recipients were fixed before the results were seen.",
        "limit_source": "<b>Errors of handling.</b> The bound covers chance, not a file that was"
        " exchanged, an account enrolled under a wrong name, or a fault in the software.",
        "limit_repeat": "<b>A second opinion</b> needs the files above, the policy of this epoch,"
        " the master key with this fingerprint and the database as it was: with them an"
        " independent expert must reach the same numbers.",
        "footer": "Made by pgbalise. This file is complete in itself and contains no patient data"
        " and no key.",
    },
    "fr": {
        "report_title": "Rapport de traçage",
        "months": "janvier février mars avril mai juin juillet août septembre octobre novembre"
        " décembre",
        "and": "et",
        "others": "{count} de plus",
        "of": "{part} sur {whole}",
        "relation": "Relation",
        "database": "Base de données",
        "created": "Établi le",
        "file": "ce fichier",
        "files": "ces fichiers",
        "file_start": "Ce fichier",
        "files_start": "Ces fichiers",
        "of_file": "de ce fichier",
        "of_files": "de ces fichiers",
        "contain_file": "contient",
        "contain_files": "contiennent",
        "verdict_title": "Conclusion",
        "verdict_one": "{These} {contain} des données de la copie remise à {names}.",
        "verdict_many": "{These} {contain} des données des copies remises à {names}.",
        "verdict_none": "Aucun destinataire ne peut être désigné comme source {of_these}.",
        "explained_one": "La probabilité que cette méthode désigne un destinataire innocent, quel"
        " qu’il soit, est d’au plus 1 sur\u00a0{chance}. Un destinataire est un compte de la base"
        " de données, non une personne.",
        "explained_many": "La probabilité que cette méthode désigne à tort ne serait-ce qu’un"
        " seul destinataire est d’au plus 1 sur\u00a0{chance}. Un destinataire est un compte de"
        " la base de données, non une personne.",
        "explained_none": "Pour aucun des {recipients} destinataires, la preuve n’atteint le"
        " niveau à partir duquel cette méthode désigne quelqu’un. Cela n’innocente personne : les"
        " données peuvent être trop peu nombreuses, trop altérées, ou venir d’ailleurs.",
        "explained_none_of_one": "La preuve contre le seul destinataire examiné n’atteint pas le"
        " niveau à partir duquel cette méthode désigne quelqu’un. Cela n’innocente personne : les"
        " données peuvent être trop peu nombreuses, trop altérées, ou venir d’ailleurs.",
        "decoys_found": "Des leurres, patients fictifs remis chacun à un seul destinataire, ont"
        " aussi été retrouvés : {list}. Ils n’entrent pas dans le calcul de la preuve ci-dessous.",
        "decoys_of": "{count} remis à {name}",
        "strongest_evidence": "Preuve la plus forte",
        "needed": "Seuil",
        "compared": "Destinataires comparés",
        "rows_matched": "Lignes appariées",
        "meaning_title": "Ce que signifie ce nombre",
        "meaning_1": "Chaque destinataire reçoit les données avec son propre motif de très"
        " petites modifications, tiré au sort au moyen d’une clé secrète. Le traçage compare le"
        " fichier au motif de chaque destinataire et résume la comparaison en un nombre, la"
        " e-valeur. Pour un destinataire étranger au fichier, la e-valeur est en moyenne de 1 au"
        " plus. Le hasard peut la rendre plus grande, mais rarement : 1\u202f000 ou plus dans au"
        " plus un cas sur 1\u202f000, un million ou plus dans au plus un cas sur un million.",
        "meaning_threshold": "Ici {recipients} destinataires ont été comparés : le hasard avait"
        " donc {recipients} occasions. C’est pourquoi un destinataire n’est désigné qu’à partir"
        " de {threshold}. Avec ce seuil, la probabilité qu’un innocent, quel qu’il soit, soit"
        " désigné est d’au plus\u00a0{alpha}, soit 1 sur\u00a0{chance}.",
        "meaning_threshold_one": "Un destinataire n’est désigné qu’à partir de {threshold}. Avec"
        " ce seuil, la probabilité qu’un innocent soit désigné est d’au plus\u00a0{alpha}, soit 1"
        " sur\u00a0{chance}.",
        "meaning_here": "La e-valeur de {name} est de {value}. Si ce destinataire était étranger"
        " au fichier, une valeur aussi grande se présenterait dans au plus un cas"
        " sur\u00a0{alone}.",
        "meaning_among": "Qu’elle se présente pour l’un quelconque des {recipients} destinataires"
        " comparés n’arriverait encore que dans au plus un cas sur\u00a0{among}.",
        "meaning_extreme": "À ce niveau, la question n’est plus le hasard, mais la bonne gestion"
        " des clés, des fichiers et des registres.",
        "meaning_guilt": "Ce nombre n’est ni la probabilité de la culpabilité, ni celle de"
        " l’innocence. Il mesure à quel point le hasard explique mal ce que montre le fichier, et"
        " doit être apprécié avec les autres éléments du dossier.",
        "ranking_title": "Tous les destinataires, classés par force de la preuve",
        "axis_rank": "destinataires, preuve la plus forte d’abord",
        "axis_value": "preuve (e-valeur)",
        "threshold_label": "seuil {threshold} = N/α, avec N = {recipients}, α = {alpha}",
        "plot_caption": "Chaque point est l’un des {recipients} destinataires ; chaque ligne de"
        " la grille vaut {step} fois celle du dessous. Les points situés sur la ligne en tirets"
        " ou au-dessus sont désignés comme sources. Autour de 1 et au-dessous, il n’y a pas de"
        " preuve.",
        "plot_caption_one": "Le point est le seul destinataire ; chaque ligne de la grille vaut"
        " {step} fois celle du dessous. Un point situé sur la ligne en tirets ou au-dessus est"
        " désigné comme source. Autour de 1 et au-dessous, il n’y a pas de preuve.",
        "plot_clipped": "Les valeurs inférieures à {low} sont placées sur le bord inférieur.",
        "plot_described": "Preuve contre {recipients} destinataires, sur une échelle"
        " logarithmique. Le seuil est de {threshold} ; {accused} l’atteignent. La preuve la plus"
        " forte est contre {name}, avec {value}.",
        "ranking_caption": "Preuves les plus fortes : {shown} destinataires sur {recipients}",
        "rank": "Rang",
        "recipient": "Destinataire",
        "e_value": "E-valeur",
        "against_threshold": "Par rapport au seuil",
        "agreeing_cells": "Cellules concordantes",
        "decoys": "Leurres",
        "finding": "Résultat",
        "named": "désigné",
        "not_named": "non désigné",
        "bar_note": "Les barres comptent les puissances de dix à partir de 1 ; le repère est le"
        " seuil.",
        "rest": "Les {count} autres destinataires ont au plus {value}.",
        "carriers_title": "La preuve par colonne",
        "cells": "{marked} cellules des lignes appariées portent une marque ; la preuve de {used}"
        " d’entre elles a été utilisée.",
        "carriers_text": "Une cellule est informative quand sa valeur dans le fichier plaide plus"
        " pour l’une des marques possibles que pour l’autre. Les marques d’un destinataire"
        " innocent concordent avec de nombreuses cellules par hasard : la part de cellules"
        " concordantes dit donc peu par elle-même, et la e-valeur pèse chaque cellule selon la"
        " rareté de sa marque.",
        "carriers_none": "Aucune preuve par colonne n’a été enregistrée.",
        "carriers_caption": "Cellules comparées aux marques de {name}, le destinataire contre"
        " lequel la preuve est la plus forte",
        "carrier": "Colonne",
        "selected": "Cellules marquées",
        "informative": "Informatives",
        "agree": "Concordent",
        "disagree": "Divergent",
        "share_agreeing": "Concordance",
        "total": "Total",
        "noise_title": "Ce que les données ont subi",
        "noise_none": "Rien n’a été enregistré sur une altération des valeurs.",
        "noise_unaltered": "Les valeurs sont restées telles qu’elles avaient été remises, ou"
        " presque.",
        "noise_altered": "Des valeurs ont été altérées après la remise dans {names}.",
        "noise_text": "Cela est estimé sur toutes les cellules appariées, avant tout examen d’un"
        " destinataire, et n’affecte pas la borne sur la fausse accusation. Une modification de"
        " la base depuis la remise apparaît aussi comme une altération.",
        "noise_caption": "Changements dans les cellules de chaque colonne",
        "transformation": "Constat",
        "share": "Part des cellules",
        "matching_title": "Appariement du fichier avec la base",
        "matching_text": "Sur {read} lignes lues, {aligned} ({share}) ont été appariées à une"
        " ligne de la base {how}. Les lignes sans correspondance claire ont été écartées.",
        "matched_by_key": "par leur clé",
        "matched_by_content": "par leur contenu",
        "matching_caption": "Colonnes du fichier",
        "leak_column": "Colonne du fichier",
        "used_as": "Utilisée comme",
        "relation_column": "Colonne de la relation",
        "use_carrier": "preuve",
        "use_key": "clé de ligne",
        "use_ignored": "non utilisée",
        "inputs_title": "Fichiers, clé et versions",
        "inputs_text": "Le détenteur d’un fichier peut vérifier qu’il s’agit de celui qui est"
        " examiné ici : son empreinte SHA-256 doit être identique.",
        "file_size": "{rows} lignes, {size} octets",
        "epoch": "Époque des marques",
        "epoch_times": "en vigueur du {start} au {end}",
        "epoch_now": "jour du rapport",
        "epochs_untried": "Non essayées, faute de leur clé maîtresse : {listed}",
        "key_fingerprint": "Empreinte de la clé",
        "versions": "Logiciels",
        "method_title": "Comment le calcul est fait",
        "method_marks": "Chaque destinataire <i>j</i> a un mot de code, une suite de bits secrets"
        " <i>X<sub>ji</sub></i> tirés indépendamment les uns des autres ; le bit <i>i</i> vaut 1"
        " avec une probabilité <i>p<sub>i</sub></i>. À certaines cellules, choisies au moyen"
        " d’une clé secrète, est attribuée une position <i>i</i>, et la valeur qui y est remise"
        " dépend du bit <i>i</i>, dans la tolérance fixée par la politique.",
        "method_evidence": "Les lignes du fichier sont appariées à la base. Pour chaque position"
        " <i>i</i>, soit <i>f<sub>i</sub></i>(<i>x</i>) la vraisemblance de ce que montre le"
        " fichier si une source a le bit <i>x</i>. La preuve contre le destinataire <i>j</i> est",
        "method_average": "en moyenne sur de nombreuses hypothèses quant au nombre de"
        " destinataires qui auraient agi ensemble et à la façon dont ils auraient combiné leurs"
        " copies.",
        "method_statement": "<b>Borne sur la fausse accusation.</b> Si le destinataire <i>j</i>"
        " est innocent, le fichier s’est fait sans sa copie : ses bits sont indépendants du"
        " fichier et chaque facteur vaut 1 en moyenne, si bien que la moyenne de"
        " <i>E<sub>j</sub></i> est d’au plus 1. D’après l’inégalité de Markov,"
        " <i>E<sub>j</sub></i> atteint <i>N</i>/<i>α</i> avec une probabilité d’au plus"
        " <i>α</i>/<i>N</i>. Il y a au plus <i>N</i> innocents : la probabilité que l’un"
        " quelconque d’entre eux soit désigné est donc d’au plus <i>α</i>, quoi qu’ait fait le"
        " voleur. Ici <i>N</i>\u00a0=\u00a0{recipients}, <i>α</i>\u00a0=\u00a0{alpha} et"
        " <i>N</i>/<i>α</i>\u00a0=\u00a0{threshold}.",
        "method_key": "Une hypothèse erronée sur le voleur peut cacher une source ; elle ne peut"
        " mettre la borne en défaut. Les bits sont dérivés de la clé maîtresse par une fonction"
        " pseudo-aléatoire cryptographique : l’énoncé suppose que cette clé est restée secrète.",
        "limits_title": "Ce que ce rapport ne peut pas prouver",
        "limits_text": "Le rapport dit de quelle copie il s’agit. Il ne peut dire ce qui suit.",
        "limit_person": "<b>Qui.</b> Un destinataire est un compte de la base de données. Qui"
        " s’en est servi, qui en a reçu les données, et si la copie a été volée au destinataire"
        " lui-même doit être établi par d’autres moyens.",
        "limit_copy": "<b>Quand, pourquoi, combien.</b> Il ne montre ni quand ni pourquoi les"
        " données sont sorties, ni que tout le fichier vient d’une même copie. D’autres sources"
        " peuvent avoir laissé trop peu de preuves.",
        "limit_absence": "<b>L’innocence.</b> Un destinataire non désigné n’est pas innocenté."
        " Des données prises dans les tables non marquées, dans une sauvegarde par exemple, ne"
        " portent les marques d’aucun destinataire.",
        "limit_frame": "<b>Le coup monté.</b> Qui a tous les droits sur la base, ou la clé"
        " maîtresse, pourrait fabriquer un fichier portant les marques d’autrui. Les engagements"
        " du registre montrent que les mots de code n’ont pas changé depuis l’inscription ; ils"
        " ne montrent pas que nul n’en a abusé. Le dossier doit dire qui détenait la clé et ces"
        " droits.",
        "limit_beforehand": "<b>Des règles fixées après coup.</b> La borne vaut si <i>α</i> et la"
        " liste des destinataires ont été fixés avant que les résultats soient connus.",
        "limit_source": "<b>Les erreurs de manipulation.</b> La borne couvre le hasard, non un"
        " fichier échangé, un compte inscrit sous un faux nom ou un défaut du logiciel.",
        "limit_repeat": "<b>Une contre-expertise</b> demande les fichiers ci-dessus, la politique"
        " de cette époque, la clé maîtresse de cette empreinte et la base dans son état d’alors :"
        " avec eux, un expert indépendant doit retrouver les mêmes nombres.",
        "footer": "Établi par pgbalise. Ce fichier est complet en lui-même et ne contient ni"
        " donnée de patient ni clé.",
    },
}
