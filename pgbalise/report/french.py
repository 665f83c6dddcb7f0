"""What a report says in French; braces stand for values."""

from __future__ import annotations

FRENCH = {
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
    " qu’il soit, est d’au plus 1 sur\u00a0{chance}. Un destinataire est un compte de la base de"
    " données, non une personne.",
    "explained_many": "La probabilité que cette méthode désigne à tort ne serait-ce qu’un seul"
    " destinataire est d’au plus 1 sur\u00a0{chance}. Un destinataire est un compte de la base de"
    " données, non une personne.",
    "explained_none": "Pour aucun des {recipients} destinataires, la preuve n’atteint le niveau"
    " à partir duquel cette méthode désigne quelqu’un. Cela n’innocente personne : les données"
    " peuvent être trop peu nombreuses, trop altérées, ou venir d’ailleurs.",
    "explained_none_of_one": "La preuve contre le seul destinataire examiné n’atteint pas le"
    " niveau à partir duquel cette méthode désigne quelqu’un. Cela n’innocente personne : les"
    " données peuvent être trop peu nombreuses, trop altérées, ou venir d’ailleurs.",
    "decoys_found": "Des leurres, patients fictifs remis chacun à un seul destinataire, ont"
    " aussi été retrouvés : {list}. La preuve ci-dessous en tient compte.",
    "decoys_title": "Leurres retrouvés",
    "decoys_text": "Un leurre est un patient qui n’existe pas, inventé pour un seul destinataire à"
    " partir de la clé secrète. Les leurres d’un destinataire étranger au fichier ne s’y trouvent"
    " que par hasard : parmi toutes les valeurs de cette sorte dans le fichier, il faudrait que"
    " l’une soit, sans qu’on le sache, celle qui a été tirée. L’improbabilité de ce hasard est une"
    " preuve à part entière, qui multiplie celle des valeurs. Les leurres ne sont désignés ici que"
    " par des numéros, afin que ce rapport n’en trahisse aucun.",
    "decoys_caption": "Leurres présents dans le fichier, avec la preuve de chacun pris seul",
    "decoy": "Leurre",
    "decoy_name": "{recipient}, numéro {number}",
    "recognised_by": "Reconnu à",
    "trait_record": "numéro de dossier",
    "trait_nir": "NIR",
    "trait_phone": "téléphone",
    "trait_mail": "adresse électronique",
    "trait_rpps": "numéro RPPS",
    "trait_person": "noms et date de naissance",
    "decoys_of": "{count} remis à {name}",
    "strongest_evidence": "Preuve la plus forte",
    "needed": "Seuil",
    "compared": "Destinataires comparés",
    "rows_matched": "Lignes appariées",
    "meaning_title": "Ce que signifie ce nombre",
    "meaning_1": "Chaque destinataire reçoit les données avec son propre motif de très petites"
    " modifications, tiré au sort au moyen d’une clé secrète. Le traçage compare le fichier au"
    " motif de chaque destinataire et résume la comparaison en un nombre, la e-valeur. Pour un"
    " destinataire étranger au fichier, la e-valeur est en moyenne de 1 au plus. Le hasard peut"
    " la rendre plus grande, mais rarement : 1\u202f000 ou plus dans au plus un cas sur"
    " 1\u202f000, un million ou plus dans au plus un cas sur un million.",
    "meaning_threshold": "Ici {recipients} destinataires ont été comparés : le hasard avait"
    " donc {recipients} occasions. C’est pourquoi un destinataire n’est désigné qu’à partir de"
    " {threshold}. Avec ce seuil, la probabilité qu’un innocent, quel qu’il soit, soit désigné"
    " est d’au plus\u00a0{alpha}, soit 1 sur\u00a0{chance}.",
    "meaning_threshold_one": "Un destinataire n’est désigné qu’à partir de {threshold}. Avec ce"
    " seuil, la probabilité qu’un innocent soit désigné est d’au plus\u00a0{alpha}, soit 1"
    " sur\u00a0{chance}.",
    "meaning_here": "La e-valeur de {name} est de {value}. Si ce destinataire était étranger au"
    " fichier, une valeur aussi grande se présenterait dans au plus un cas sur\u00a0{alone}.",
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
    "plot_caption": "Chaque point est l’un des {recipients} destinataires ; chaque ligne de la"
    " grille vaut {step} fois celle du dessous. Les points situés sur la ligne en tirets ou"
    " au-dessus sont désignés comme sources. Autour de 1 et au-dessous, il n’y a pas de preuve.",
    "plot_caption_one": "Le point est le seul destinataire ; chaque ligne de la grille vaut"
    " {step} fois celle du dessous. Un point situé sur la ligne en tirets ou au-dessus est"
    " désigné comme source. Autour de 1 et au-dessous, il n’y a pas de preuve.",
    "plot_clipped": "Les valeurs inférieures à {low} sont placées sur le bord inférieur.",
    "plot_described": "Preuve contre {recipients} destinataires, sur une échelle logarithmique."
    " Le seuil est de {threshold} ; {accused} l’atteignent. La preuve la plus forte est contre"
    " {name}, avec {value}.",
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
    "bar_note": "Les barres comptent les puissances de dix à partir de 1 ; le repère est le seuil.",
    "rest": "Les {count} autres destinataires ont au plus {value}.",
    "carriers_title": "La preuve par colonne",
    "cells": "{marked} cellules des lignes appariées portent une marque ; la preuve de {used}"
    " d’entre elles a été utilisée.",
    "carriers_text": "Une cellule est informative quand sa valeur dans le fichier plaide plus"
    " pour l’une des marques possibles que pour l’autre. Les marques d’un destinataire innocent"
    " concordent avec de nombreuses cellules par hasard : la part de cellules concordantes dit"
    " donc peu par elle-même, et la e-valeur pèse chaque cellule selon la rareté de sa marque.",
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
    "noise_unaltered": "Les valeurs sont restées telles qu’elles avaient été remises, ou presque.",
    "noise_altered": "Des valeurs ont été altérées après la remise dans {names}.",
    "noise_text": "Cela est estimé sur toutes les cellules appariées, avant tout examen d’un"
    " destinataire, et n’affecte pas la borne sur la fausse accusation. Une modification de la"
    " base depuis la remise apparaît aussi comme une altération.",
    "noise_caption": "Changements dans les cellules de chaque colonne",
    "transformation": "Constat",
    "share": "Part des cellules",
    "matching_title": "Appariement du fichier avec la base",
    "matching_text": "Sur {read} lignes lues, {aligned} ({share}) ont été appariées à une ligne"
    " de la base.",
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
    " <i>X<sub>ji</sub></i> tirés indépendamment les uns des autres ; le bit <i>i</i> vaut 1 avec"
    " une probabilité <i>p<sub>i</sub></i>. À certaines cellules, choisies au moyen d’une clé"
    " secrète, est attribuée une position <i>i</i>, et la valeur qui y est remise dépend du bit"
    " <i>i</i>, dans la tolérance fixée par la politique.",
    "method_evidence": "Les lignes du fichier sont appariées à la base. Pour chaque position"
    " <i>i</i>, soit <i>f<sub>i</sub></i>(<i>x</i>) la vraisemblance de ce que montre le fichier"
    " si une source a le bit <i>x</i>. La preuve contre le destinataire <i>j</i> est",
    "method_average": "en moyenne sur de nombreuses hypothèses quant au nombre de destinataires"
    " qui auraient agi ensemble et à la façon dont ils auraient combiné leurs copies.",
    "method_statement": "<b>Borne sur la fausse accusation.</b> Si le destinataire <i>j</i> est"
    " innocent, le fichier s’est fait sans sa copie : ses bits sont indépendants du fichier et"
    " chaque facteur vaut 1 en moyenne, si bien que la moyenne de <i>E<sub>j</sub></i> est d’au"
    " plus 1. D’après l’inégalité de Markov, <i>E<sub>j</sub></i> atteint <i>N</i>/<i>α</i> avec"
    " une probabilité d’au plus <i>α</i>/<i>N</i>. Il y a au plus <i>N</i> innocents : la"
    " probabilité que l’un quelconque d’entre eux soit désigné est donc d’au plus <i>α</i>, quoi"
    " qu’ait fait le voleur. Ici <i>N</i>\u00a0=\u00a0{recipients}, <i>α</i>\u00a0=\u00a0{alpha}"
    " et <i>N</i>/<i>α</i>\u00a0=\u00a0{threshold}.",
    "method_key": "Une hypothèse erronée sur le voleur peut cacher une source ; elle ne peut"
    " mettre la borne en défaut. Les bits sont dérivés de la clé maîtresse par une fonction"
    " pseudo-aléatoire cryptographique : l’énoncé suppose que cette clé est restée secrète.",
    "limits_title": "Ce que ce rapport ne peut pas prouver",
    "limits_text": "Le rapport dit de quelle copie il s’agit. Il ne peut dire ce qui suit.",
    "limit_person": "<b>Qui.</b> Un destinataire est un compte de la base de données. Qui s’en"
    " est servi, qui en a reçu les données, et si la copie a été volée au destinataire lui-même"
    " doit être établi par d’autres moyens.",
    "limit_copy": "<b>Quand, pourquoi, combien.</b> Il ne montre ni quand ni pourquoi les"
    " données sont sorties, ni que tout le fichier vient d’une même copie. D’autres sources"
    " peuvent avoir laissé trop peu de preuves.",
    "limit_absence": "<b>L’innocence.</b> Un destinataire non désigné n’est pas innocenté. Des"
    " données prises dans les tables non marquées, dans une sauvegarde par exemple, ne portent"
    " les marques d’aucun destinataire.",
    "limit_frame": "<b>Le coup monté.</b> Qui a tous les droits sur la base, ou la clé"
    " maîtresse, pourrait fabriquer un fichier portant les marques d’autrui. Les engagements du"
    " registre montrent que les mots de code n’ont pas changé depuis l’inscription ; ils ne"
    " montrent pas que nul n’en a abusé. Le dossier doit dire qui détenait la clé et ces droits.",
    "limit_beforehand": "<b>Des règles fixées après coup.</b> La borne vaut si <i>α</i> et la"
    " liste des destinataires ont été fixés avant que les résultats soient connus.",
    "limit_source": "<b>Les erreurs de manipulation.</b> La borne couvre le hasard, non un"
    " fichier échangé, un compte inscrit sous un faux nom ou un défaut du logiciel.",
    "limit_repeat": "<b>Une contre-expertise</b> demande les fichiers ci-dessus, la politique"
    " de cette époque, la clé maîtresse de cette empreinte et la base dans son état d’alors :"
    " avec eux, un expert indépendant doit retrouver les mêmes nombres.",
    "footer": "Établi par pgbalise. Ce fichier est complet en lui-même et ne contient ni donnée"
    " de patient ni clé.",
    "relations": "Relations",
    "case": "Affaire",
    "case_text": "{title} (numéro {number}), examen {look}",
    "signer_head": "Signé par",
    "alpha_spent": "C’était l’examen {look} d’une affaire dans laquelle la probabilité que"
    " quiconque soit jamais accusé à tort est tenue à {whole} ; cet examen en a dépensé {part}.",
    "rounds_title": "Désignés tour par tour",
    "rounds_text": "Les destinataires sont désignés par tours. Ce que les premiers désignés ont"
    " apporté explique une partie du fichier ; on le tient alors pour connu, et tous les autres"
    " sont examinés de nouveau au regard de ce qui reste. Qui se cachait parmi d’autres peut"
    " alors être désigné. Cela s’appelle conditionner.",
    "rounds_bound": "La borne sur la fausse accusation couvre tous les tours ensemble. Tant"
    " qu’aucun innocent n’a été désigné, ce qui est tenu pour connu dépend des seules sources,"
    " jamais des bits d’un destinataire innocent : la preuve contre chaque innocent vaut donc"
    " toujours au plus 1 en moyenne.",
    "rounds_caption": "Qui a été désigné, et quand",
    "round": "Tour",
    "newly_named": "Désignés à ce tour",
    "round_none": "personne",
    "source_title": "La base depuis que la copie a été faite",
    "source_text": "Le fichier est comparé aux lignes telles qu’elles sont enregistrées"
    " aujourd’hui. Voici une estimation de ce qui a changé entre-temps ; ces changements peuvent"
    " cacher une source, ils ne peuvent pas faire passer un innocent pour une source.",
    "source_same": "Aucun changement n’a été trouvé.",
    "source_caption": "Changements estimés depuis que la copie a été faite",
    "what_changed": "Changement",
    "share_changed": "Part",
    "rows_deleted": "lignes supprimées depuis",
    "cells_changed": "cellules modifiées dans {column}",
    "table": "Table",
    "matched_with": "Rapprochée de",
    "rows_read": "Lignes lues",
    "aligned": "Appariées",
    "ambiguous": "Ambiguës",
    "without": "Sans pendant",
    "duplicates": "Répétées",
    "altered": "Cellules altérées",
    "how": "Comment",
    "no_relation": "aucune relation",
    "way_key": "par clé",
    "way_linkage": "par contenu",
    "way_none": "non appariée",
    "tables_text": "Les lignes sont appariées par leur clé quand le fichier la contient encore,"
    " sinon par leur contenu : toutes les colonnes ensemble, chaque valeur comptant d’autant plus"
    " qu’elle est rare. Les lignes qui conviennent également à plusieurs lignes enregistrées sont"
    " ambiguës et pèsent peu ou rien ; une ligne répétée compte une fois. L’appariement ne"
    " regarde jamais qui a reçu quoi.",
    "doubtful": "Les colonnes de {names} peuvent ne pas distinguer une ligne de la base"
    " d’une autre ; les lignes qui en désignent plusieurs ont été écartées.",
    "skipped": "Non lu :",
    "tables_caption": "Tables des fichiers, et leurs lignes",
    "mapping_caption": "Colonnes de {table}",
    "found_by": "Trouvée par",
    "confidence": "Certitude",
    "written_as": "Notation",
    "by_name": "nom",
    "by_content": "contenu",
    "by_given": "indication de l’auditeur",
    "by_none": "–",
    "use_link": "recherche de la ligne",
    "extracts_title": "Extractions possibles",
    "extracts_none": "Le registre des extractions n’a pas été consulté.",
    "extracts_nobody": "Le registre ne contient aucune extraction des destinataires désignés"
    " qui convienne.",
    "extracts_text": "Le registre consigne ce que chaque destinataire a pris, et quand. Les"
    " extractions ci-dessous s’accordent avec ce qui a été trouvé ; celle qui a fui peut en faire"
    " partie, et rien ici ne s’ajoute à la preuve ci-dessus.",
    "extracts_caption": "Extractions des destinataires désignés : {shown} sur {fitting} qui"
    " conviennent",
    "sequence": "Écriture",
    "taken": "Prise",
    "rows_delivered": "Lignes",
    "through": "Par",
    "why": "Pourquoi elle convient",
    "not_known": "inconnu",
    "digest_policy": "Politique",
    "digest_source": "Lignes enregistrées",
    "digest_recipients": "Destinataires comparés",
    "digest_mapping": "Colonnes indiquées",
    "commitments": "Engagements",
    "commitments_unchecked": "non vérifiés",
    "commitments_checked": "le mot de code de chaque destinataire désigné est conforme à"
    " l’engagement pris à l’inscription, tel que la base le conserve",
    "commitments_registry": "le mot de code de chaque destinataire désigné est conforme à"
    " l’engagement pris à l’inscription, tel que le registre le conserve",
    "commitment_recorded": "{name} consigné le {at}",
    "parameters": "Paramètres",
    "limit_account": "<b>La garde du fichier.</b> Il ne montre pas qui a détenu le fichier"
    " entre la fuite et cet examen, ni qu’il a été trouvé là où on le dit. L’empreinte fixe le"
    " fichier à partir de cet examen.",
    "limit_stored": "<b>Les lignes enregistrées.</b> La comparaison porte sur les lignes"
    " enregistrées aujourd’hui. Qu’elles soient celles qui ont été remises alors est une"
    " affirmation de l’hôpital, non un résultat.",
    "limit_independence": "<b>L’indépendance.</b> La borne suppose que les bits d’un innocent"
    " et le fichier se sont faits indépendamment. Si le fichier a été fait en connaissant le mot"
    " de code de quelqu’un, ou par l’hôpital lui-même pour éprouver la méthode, elle ne dit rien.",
    "signature_title": "Signature",
    "unsigned": "Ce rapport n’est pas signé. Seul le soin de ceux qui l’ont conservé garantit"
    " qu’il est tel qu’il a été établi.",
    "signed": "Ce rapport est scellé : la dernière ligne du fichier contient une signature"
    " Ed25519 de tout ce qui la précède. Un caractère changé la rend nulle.",
    "signed_check": "Quiconque tient la clé publique du signataire d’une source sûre peut la"
    " vérifier, sans aucune base de données :",
    "signed_paper": "Une copie imprimée ne peut être vérifiée ; le fichier, si.",
    "public_key": "Clé publique",
    "signed_at": "Signé le",
    "authority": "Heure confirmée par",
    "no_authority": "personne ; l’heure est celle que déclare le signataire",
}
