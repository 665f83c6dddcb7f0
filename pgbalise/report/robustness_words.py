"""What a robustness report says, in each language; braces stand for values."""

from __future__ import annotations

from pgbalise.report.words import Language

WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "title": "Robustness report",
        "relation": "Relation",
        "recipients": "Recipients",
        "alpha": "False accusation α",
        "copies": "Copies",
        "copies_are": "{rows} rows each, drawn from {stored}",
        "trials": "Leaks per line",
        "seed": "Seed",
        "headline_rows": "An unaltered copy names its recipient from {rows} rows on.",
        "headline_none": "An unaltered copy of {rows} rows names its recipient in {share} of the"
        " trials.",
        "headline_other": "What thieves may do to copies, and how often they are named.",
        "figure_untouched": "Unaltered copies traced",
        "figure_hardest": "After the hardest attack",
        "figure_wronged": "Innocents accused",
        "of": "{part} of {whole}",
        "advice_title": "What this means for the policy",
        "advice_untouched": "A copy that nobody altered names its recipient from {rows} rows on, in"
        " 95% of cases.",
        "advice_untouched_none": "Even {most} unaltered rows do not name the recipient in 95% of"
        " cases. The relation carries too few marks: raise the density or add carriers.",
        "advice_carriers": "Where the evidence comes from: {list}.",
        "advice_weak": "{name} adds next to nothing. Its values may lie outside of the bounds, or"
        " between thresholds: see pgbalise policy check.",
        "advice_hardest": "Of what one thief may do to the values, this hurts most: {what}. Then"
        " {rows} rows are needed instead of {base}.",
        "advice_hardest_never": "Of what one thief may do to the values, this hurts most: {what}."
        " Then not even {most} rows are enough.",
        "advice_survivor": "What remains then is mostly in {name}. A carrier that such an attack"
        " does not reach, or a larger quantum, helps more than density.",
        "advice_density": "{times} the density: {rows} rows for unaltered copies instead of"
        " {base}{after}. {verdict}",
        "advice_quantum": "{times} the quantum: {rows} rows for unaltered copies instead of"
        " {base}{after}. {verdict}",
        "advice_after": ", and {rows} instead of {base} after the hardest attack",
        "verdict_halves": "That halves the rows needed.",
        "verdict_hard": "That halves the rows needed after the hardest attack.",
        "verdict_some": "That helps, but does not halve the rows needed.",
        "verdict_little": "That changes little.",
        "advice_coalition": "Of coalitions, {thieves} thieves are hardest to name when they"
        " proceed like this: {what}. Of {rows} rows each, at least one of them is named in"
        " {share} of the trials, all of them in {all}.",
        "advice_not_traced": "Some leaks could not be traced at all: {list}.",
        "advice_wronged_none": "None of {scored} innocents that were scored was accused.",
        "advice_wronged": "{wronged} of {scored} innocents that were scored were accused.",
        "twice": "Twice",
        "times": "{factor} times",
        "more": "more than {most}",
        "most": "> {most}",
        "detection_title": "How often a thief is named",
        "detection_caption": "Share of {trials} leaks of {rows} rows in which at least one thief is"
        " named. The thin line is the 95% interval.",
        "curve_title": "How many rows it takes",
        "curve_caption": "Share of leaks in which at least one thief is named, against the rows of"
        " the copies. The dashed line is 95%.",
        "axis_rows": "rows of the copy",
        "axis_detection": "named",
        "table_title": "All figures",
        "table_caption": "Each line: {trials} leaks of {rows} rows. Rows needed: at least one thief"
        " named in 95% of the leaks.",
        "attack": "Attack",
        "thieves": "Thieves",
        "detected": "Named",
        "interval": "95% interval",
        "all_named": "All named",
        "recall": "Share of thieves named",
        "rows_needed": "Rows needed",
        "wronged": "Innocents accused",
        "not_traced": "Not traced",
        "carriers_title": "Where the evidence comes from",
        "carriers_caption": "Decades of evidence (log10 of the e-value) that each carrier adds"
        " against the thief, in a leak of {rows} rows. {threshold} are needed in all.",
        "carrier": "Carrier",
        "variants_title": "What a change of the policy would do",
        "variants_caption": "Rows needed for 95%, with the same leaks.",
        "change": "Change",
        "as_is": "as it is",
        "density": "density × {factor}",
        "quantum": "quantum × {factor}",
        "method_title": "How this was found out",
        "method": "Copies of the database’s own rows were marked for thieves drawn at random, with"
        " a master key that is good for nothing else. Each attack was carried out on them, and"
        " what became of them was traced like any leak. The thieves, the rows and the size of a"
        " leak are the same under every attack, so lines can be compared. In each trial the"
        " thieves and a few innocents, drawn anew, were scored; the threshold is the one for all"
        " {recipients} recipients. Everything follows from the seed: the same seed gives the same"
        " figures.",
        "method_limits": "These are attacks that are known. The bound on false accusations holds"
        " for every attack, known or not; the detection rates do not.",
        "method_linked": "Leaks without their key were looked for among at most {linked} stored"
        " rows.",
        "kind_selection": "Rows and columns",
        "kind_values": "Values",
        "kind_collusion": "Coalitions",
        "kind_look": "How it is written",
        "kind_key": "The key",
        "without_key": "without key",
        "thieves_short": "{count} thieves",
        "footer": "Made by pgbalise from the database’s own rows. It contains no row and no key.",
    },
    "fr": {
        "title": "Rapport de robustesse",
        "relation": "Relation",
        "recipients": "Destinataires",
        "alpha": "Fausse accusation α",
        "copies": "Copies",
        "copies_are": "{rows} lignes chacune, tirées de {stored}",
        "trials": "Fuites par ligne",
        "seed": "Graine",
        "headline_rows": "Une copie intacte désigne son destinataire à partir de {rows} lignes.",
        "headline_none": "Une copie intacte de {rows} lignes désigne son destinataire dans {share}"
        " des essais.",
        "headline_other": "Ce que des voleurs peuvent faire aux copies, et combien de fois ils sont"
        " désignés.",
        "figure_untouched": "Copies intactes retrouvées",
        "figure_hardest": "Après la pire attaque",
        "figure_wronged": "Innocents accusés",
        "of": "{part} sur {whole}",
        "advice_title": "Ce que cela signifie pour la politique",
        "advice_untouched": "Une copie que personne n’a altérée désigne son destinataire à partir"
        " de {rows} lignes, dans 95 % des cas.",
        "advice_untouched_none": "Même {most} lignes intactes ne désignent pas le destinataire dans"
        " 95 % des cas. La relation porte trop peu de marques : augmentez la densité ou ajoutez"
        " des porteurs.",
        "advice_carriers": "D’où viennent les indices : {list}.",
        "advice_weak": "{name} n’apporte presque rien. Ses valeurs sont peut-être hors des bornes,"
        " ou entre des seuils : voir pgbalise policy check.",
        "advice_hardest": "De ce qu’un voleur seul peut faire aux valeurs, le plus gênant est :"
        " {what}. Il faut alors {rows} lignes au lieu de {base}.",
        "advice_hardest_never": "De ce qu’un voleur seul peut faire aux valeurs, le plus gênant"
        " est : {what}. Même {most} lignes ne suffisent plus.",
        "advice_survivor": "Ce qui reste alors se trouve surtout dans {name}. Un porteur que cette"
        " attaque n’atteint pas, ou un quantum plus grand, aide plus que la densité.",
        "advice_density": "Densité {times} : {rows} lignes pour une copie intacte au lieu de"
        " {base}{after}. {verdict}",
        "advice_quantum": "Quantum {times} : {rows} lignes pour une copie intacte au lieu de"
        " {base}{after}. {verdict}",
        "advice_after": ", et {rows} au lieu de {base} après la pire attaque",
        "verdict_halves": "Cela divise par deux les lignes nécessaires.",
        "verdict_hard": "Cela divise par deux les lignes nécessaires après la pire attaque.",
        "verdict_some": "Cela aide, sans diviser par deux les lignes nécessaires.",
        "verdict_little": "Cela ne change guère.",
        "advice_coalition": "Parmi les coalitions, {thieves} voleurs sont les plus difficiles à"
        " désigner s’ils procèdent ainsi : {what}. Sur {rows} lignes chacun, au moins l’un d’eux"
        " est désigné dans {share} des essais, tous dans {all}.",
        "advice_not_traced": "Certaines fuites n’ont pas pu être tracées : {list}.",
        "advice_wronged_none": "Aucun des {scored} innocents évalués n’a été accusé.",
        "advice_wronged": "{wronged} des {scored} innocents évalués ont été accusés.",
        "twice": "doublée",
        "times": "× {factor}",
        "more": "plus de {most}",
        "most": "> {most}",
        "detection_title": "Combien de fois un voleur est désigné",
        "detection_caption": "Part des {trials} fuites de {rows} lignes où au moins un voleur est"
        " désigné. Le trait fin est l’intervalle à 95 %.",
        "curve_title": "Combien de lignes il faut",
        "curve_caption": "Part des fuites où au moins un voleur est désigné, selon le nombre de"
        " lignes des copies. Le tireté marque 95 %.",
        "axis_rows": "lignes de la copie",
        "axis_detection": "désigné",
        "table_title": "Tous les chiffres",
        "table_caption": "Par ligne : {trials} fuites de {rows} lignes. Lignes nécessaires : au"
        " moins un voleur désigné dans 95 % des fuites.",
        "attack": "Attaque",
        "thieves": "Voleurs",
        "detected": "Désigné",
        "interval": "Intervalle à 95 %",
        "all_named": "Tous désignés",
        "recall": "Part des voleurs désignés",
        "rows_needed": "Lignes nécessaires",
        "wronged": "Innocents accusés",
        "not_traced": "Non tracées",
        "carriers_title": "D’où viennent les indices",
        "carriers_caption": "Décades d’indices (log10 de la e-valeur) que chaque porteur apporte"
        " contre le voleur, dans une fuite de {rows} lignes. Il en faut {threshold} en tout.",
        "carrier": "Porteur",
        "variants_title": "Ce que changerait une autre politique",
        "variants_caption": "Lignes nécessaires pour 95 %, avec les mêmes fuites.",
        "change": "Changement",
        "as_is": "telle quelle",
        "density": "densité × {factor}",
        "quantum": "quantum × {factor}",
        "method_title": "Comment cela a été établi",
        "method": "Des copies des lignes de la base ont été marquées pour des voleurs tirés au"
        " sort, avec une clé maîtresse qui ne sert à rien d’autre. Chaque attaque leur a été"
        " appliquée, et le résultat a été tracé comme toute fuite. Les voleurs, les lignes et la"
        " taille d’une fuite sont les mêmes sous chaque attaque : les lignes sont comparables. À"
        " chaque essai, les voleurs et quelques innocents tirés à nouveau ont été évalués ; le"
        " seuil est celui de l’ensemble des {recipients} destinataires. Tout découle de la"
        " graine : la même graine donne les mêmes chiffres.",
        "method_limits": "Ce sont des attaques connues. La borne sur les fausses accusations vaut"
        " pour toute attaque, connue ou non ; les taux de détection, non.",
        "method_linked": "Les fuites sans clé ont été cherchées parmi {linked} lignes stockées au"
        " plus.",
        "kind_selection": "Lignes et colonnes",
        "kind_values": "Valeurs",
        "kind_collusion": "Coalitions",
        "kind_look": "Présentation",
        "kind_key": "La clé",
        "without_key": "sans clé",
        "thieves_short": "{count} voleurs",
        "footer": "Établi par pgbalise à partir des lignes de la base. Il ne contient ni ligne ni"
        " clé.",
    },
}

ATTACKS: dict[Language, dict[str, str]] = {
    "en": {
        "none": "unaltered copy",
        "subset": "few rows kept",
        "columns": "columns dropped",
        "superset": "other rows mixed in",
        "flip": "cells moved by a quantum",
        "noise": "noise added",
        "round": "rounded",
        "resample": "cells replaced",
        "correlation": "improbable cells corrected",
        "mix": "rows of several copies",
        "average": "mean of the copies",
        "minimum": "least of the copies",
        "maximum": "greatest of the copies",
        "majority": "majority of the copies",
        "minority": "minority of the copies",
        "interleave": "cells of several copies",
        "sort": "sorted",
        "comma": "decimal comma",
        "dates": "French dates",
        "rename": "columns renamed",
        "rekey": "key replaced",
        "keyless": "key dropped",
    },
    "fr": {
        "none": "copie intacte",
        "subset": "peu de lignes gardées",
        "columns": "colonnes supprimées",
        "superset": "autres lignes ajoutées",
        "flip": "cellules déplacées d’un quantum",
        "noise": "bruit ajouté",
        "round": "valeurs arrondies",
        "resample": "cellules remplacées",
        "correlation": "cellules improbables corrigées",
        "mix": "lignes de plusieurs copies",
        "average": "moyenne des copies",
        "minimum": "minimum des copies",
        "maximum": "maximum des copies",
        "majority": "majorité des copies",
        "minority": "minorité des copies",
        "interleave": "cellules de plusieurs copies",
        "sort": "lignes triées",
        "comma": "virgule décimale",
        "dates": "dates à la française",
        "rename": "colonnes renommées",
        "rekey": "clé remplacée",
        "keyless": "clé supprimée",
    },
}

STRENGTHS: dict[Language, dict[str, str]] = {
    "en": {
        "subset": "{percent} kept",
        "columns": "{percent} dropped",
        "superset": "+{percent}",
        "flip": "{percent}",
        "noise": "σ = {number} quanta",
        "round": "to {number} quanta",
        "resample": "{percent}",
        "correlation": "up to {percent}",
    },
    "fr": {
        "subset": "{percent} gardées",
        "columns": "{percent} supprimées",
        "superset": "+{percent}",
        "flip": "{percent}",
        "noise": "σ = {number} quanta",
        "round": "à {number} quanta",
        "resample": "{percent}",
        "correlation": "jusqu’à {percent}",
    },
}
