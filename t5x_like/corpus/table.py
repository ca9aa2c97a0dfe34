"""THE table of corpus recipes: name in a config -> class or function. A recipe reaches nothing else."""

from collections.abc import Callable

from t5x_like.corpus import (
    c4,
    cleaning,
    curate,
    decontamination,
    exact_duplicates,
    fineweb,
    gopher,
    minhash,
    personal_data,
    sources,
    warc,
    word_lists,
)
from t5x_like.tasks import readers

CORPUS: dict[str, Callable] = {
    "curate": curate.curate,
    "Source": sources.Source,
    "TextFiles": readers.TextFiles,
    "JsonLines": readers.JsonLines,
    "Parquet": readers.Parquet,
    "CodeTree": readers.CodeTree,
    "Warc": warc.Warc,
    "Wet": warc.Wet,
    "HtmlFiles": warc.HtmlFiles,
    "RepairText": cleaning.RepairText,
    "Whitespace": cleaning.Whitespace,
    "NormalizeUrl": cleaning.NormalizeUrl,
    "Language": cleaning.Language,
    "C4": c4.C4,
    "C4Paper": c4.C4Paper,
    "GopherQuality": gopher.GopherQuality,
    "GopherRepetition": gopher.GopherRepetition,
    "FineWeb": fineweb.FineWeb,
    "WordList": word_lists.WordList,
    "PersonalData": personal_data.PersonalData,
    "Decontaminate": decontamination.Decontaminate,
    "ExactDuplicates": exact_duplicates.ExactDuplicates,
    "MinHash": minhash.MinHash,
}
