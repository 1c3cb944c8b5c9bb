"""Data sets: by name or by path, in three splits, with a record of where they came from.

Framework-free: only numpy is loaded on import, everything heavier when it is used.
"""

from kcost.data.fewer_labels import fewer_labels as fewer_labels
from kcost.data.known import Source as Source, SourceFile as SourceFile
from kcost.data.loading import chosen as chosen, load as load, refuse_unknown as refuse_unknown
from kcost.data.sets import (
    Arrays as Arrays,
    ArraySet as ArraySet,
    DataSet as DataSet,
    Images as Images,
    ImageSet as ImageSet,
    Sentence as Sentence,
    TagSet as TagSet,
    Texts as Texts,
    TextSet as TextSet,
)
from kcost.data.sources import (
    CatalogueEntry as CatalogueEntry,
    catalogue as catalogue,
    fetch as fetch,
)
