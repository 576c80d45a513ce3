"""Data sets to try: the catalog that comes with semid, and the field's public sets from a folder that you have.

Nothing is downloaded. Files in reading order:

dataset         the items and interactions of a set
files           the files of a set in a folder: found by name, compressed or not
public_sets     MovieLens, Amazon, Yelp, Steam, Goodreads
prepared_sets   sets as RecBole, LC-Rec and MiniOneRec prepare them
loading         a set by its name
"""

from typing import TYPE_CHECKING

from semid._late import late_names

if TYPE_CHECKING:
    from semid.datasets.dataset import Dataset
    from semid.datasets.loading import load

__all__ = ["Dataset", "load"]
__getattr__ = late_names(__name__, __all__, [".dataset", ".loading"])
